import CCompression
import LinuxSystem

/// Inflates compressed bytes that may come from anywhere, into a buffer of its own.
///
/// No input makes an inflater write beyond its buffer, or allocate. Only one thread may use the value at a time.
package struct Inflater: ~Copyable {
    private let staging: StagingBuffer
    private let context: OpaquePointer

    /// Allocates a buffer for at most `byteCount` inflated bytes, and the state of every codec.
    package init(byteCount: Int) {
        staging = StagingBuffer(byteCount: byteCount)
        guard let context = ZSTD_createDCtx() else { preconditionFailure("no memory is left for libzstd") }
        self.context = context
    }

    deinit {
        ZSTD_freeDCtx(context)
    }

    /// Inflates bytes.
    ///
    /// - Parameters:
    ///   - bytes: the compressed bytes, all of them.
    ///   - codec: their format.
    ///   - byteCount: the number of bytes that they must inflate to, at most that of the buffer.
    /// - Returns: the inflated bytes, which stay valid until the next call.
    /// - Throws: ``InflationError`` if the bytes are of another format, or do not inflate to exactly `byteCount` bytes.
    package func inflate(
        _ bytes: UnsafeRawBufferPointer,
        by codec: Codec,
        to byteCount: Int
    ) throws(InflationError) -> UnsafeRawBufferPointer {
        precondition(byteCount <= staging.bytes.count, "the buffer has room for the inflated bytes")
        let room = UnsafeMutableRawBufferPointer(rebasing: staging.bytes[..<byteCount])
        switch codec {
        case .lz4: try inflateBlock(bytes, into: room)
        case .zstd: try inflateFrame(bytes, into: room)
        }
        return UnsafeRawBufferPointer(room)
    }

    private func inflateBlock(
        _ bytes: UnsafeRawBufferPointer,
        into room: UnsafeMutableRawBufferPointer
    ) throws(InflationError) {
        // An empty block is refused by the library too, but as one that inflates to nothing.
        guard let count = CInt(exactly: bytes.count), count > 0 else { throw .damaged(.lz4) }
        // A block does not say how many bytes it inflates to: the library stops at the end of the room.
        let inflated = LZ4_decompress_safe(
            bytes.baseAddress?.assumingMemoryBound(to: CChar.self),
            room.baseAddress?.assumingMemoryBound(to: CChar.self),
            count,
            CInt(clamping: room.count)
        )
        guard inflated >= 0 else { throw .damagedOrLonger(.lz4, than: room.count) }
        guard inflated == room.count else { throw .wrongSize(.lz4, found: UInt64(inflated), expected: room.count) }
    }

    private func inflateFrame(
        _ bytes: UnsafeRawBufferPointer,
        into room: UnsafeMutableRawBufferPointer
    ) throws(InflationError) {
        // The library would also read frames of its former formats, and several frames one after the other.
        guard bytes.count > 4, bytes[0] == 0x28, bytes[1] == 0xb5, bytes[2] == 0x2f, bytes[3] == 0xfd else {
            throw .damaged(.zstd)
        }
        let announced = ZSTD_getFrameContentSize(bytes.baseAddress, bytes.count)
        // The two largest numbers stand for a size that is missing, and for an error.
        guard announced <= UInt64(Int.max) else { throw .damaged(.zstd) }
        guard announced == UInt64(room.count) else {
            throw .wrongSize(.zstd, found: announced, expected: room.count)
        }
        guard ZSTD_findFrameCompressedSize(bytes.baseAddress, bytes.count) == bytes.count else {
            throw .damaged(.zstd)
        }
        let inflated = ZSTD_decompressDCtx(
            context,
            room.baseAddress,
            room.count,
            bytes.baseAddress,
            bytes.count
        )
        guard inflated == room.count else { throw .damaged(.zstd) }
    }
}

/// Why compressed bytes were refused.
package enum InflationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The bytes are not of the codec's format, or are cut off, or have others after them.
    case damaged(Codec)
    /// The bytes are damaged, or inflate to more than the expected bytes.
    case damagedOrLonger(Codec, than: Int)
    /// The bytes inflate to another number of bytes.
    case wrongSize(Codec, found: UInt64, expected: Int)

    /// One line for a person.
    package var description: String {
        switch self {
        case .damaged(let codec): "the bytes are no whole \(codec) data"
        case .damagedOrLonger(let codec, let expected):
            "the bytes are no whole \(codec) data, or inflate to more than \(expected) bytes"
        case .wrongSize(_, let found, let expected): "the bytes inflate to \(found) bytes, not to \(expected)"
        }
    }
}

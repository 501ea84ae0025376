import CCompression

/// Compresses pieces of memory, each of them on its own.
///
/// The value owns the libraries' states, which are made once; libzstd allocates its tables with the first run. Only one thread may use the value at a time.
package struct Compressor: ~Copyable {
    /// The level of libzstd for pushed pages.
    ///
    /// Level 3 makes pieces of 256 KiB smaller by 6 or 7 %, and takes 13 to 63 % more time.
    private static let zstdLevel: CInt = 1

    private let lz4: UnsafeMutableRawPointer?
    private let zstd: OpaquePointer?

    /// Allocates the states of some codecs.
    package init(_ codecs: [Codec]) {
        lz4 = codecs.contains(.lz4) ? .allocate(byteCount: Int(LZ4_sizeofState()), alignment: 16) : nil
        guard codecs.contains(.zstd) else {
            zstd = nil
            return
        }
        guard let context = ZSTD_createCCtx() else { preconditionFailure("no memory is left for libzstd") }
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, Compressor.zstdLevel)
        zstd = context
    }

    deinit {
        lz4?.deallocate()
        ZSTD_freeCCtx(zstd)
    }

    /// Compresses bytes.
    ///
    /// - Parameters:
    ///   - bytes: the bytes, 1 to 1 GiB of them.
    ///   - codec: one of the codecs that the compressor was made for.
    ///   - room: where the compressed bytes go.
    /// - Returns: the number of compressed bytes; nil if `room` does not hold them.
    package func compress(
        _ bytes: UnsafeRawBufferPointer,
        by codec: Codec,
        into room: UnsafeMutableRawBufferPointer
    ) -> Int? {
        switch codec {
        case .lz4:
            let count = LZ4_compress_fast_extState(
                lz4,
                bytes.baseAddress?.assumingMemoryBound(to: CChar.self),
                room.baseAddress?.assumingMemoryBound(to: CChar.self),
                CInt(bytes.count),
                CInt(room.count),
                1
            )
            return count > 0 ? Int(count) : nil
        case .zstd:
            let count = ZSTD_compress2(zstd, room.baseAddress, room.count, bytes.baseAddress, bytes.count)
            return ZSTD_isError(count) == 0 ? count : nil
        }
    }
}

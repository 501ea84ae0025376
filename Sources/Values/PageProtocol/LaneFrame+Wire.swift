extension LaneFrame {
    /// Writes the frame's 24 bytes.
    ///
    /// - Parameter bytes: where the frame goes: at least 24 writable bytes, of any alignment.
    @inlinable
    package func encode(into bytes: UnsafeMutableRawPointer) {
        let header = UInt64(16 &+ bodyByteCount) | kind.number << 32
        let place = UInt64(run.region) | UInt64(run.count) << 32
        bytes.storeBytes(of: header.littleEndian, toByteOffset: 0, as: UInt64.self)
        bytes.storeBytes(of: place.littleEndian, toByteOffset: 8, as: UInt64.self)
        bytes.storeBytes(of: run.first.littleEndian, toByteOffset: 16, as: UInt64.self)
    }

    /// Reads a frame's 24 bytes: the kind, its length, and zeros where they must be.
    ///
    /// ``RegionTable/extent(of:)-(LaneFrame)`` checks whether the run exists, and whether as many bytes follow as it
    /// has.
    ///
    /// - Parameter bytes: at least 24 readable bytes, of any alignment.
    /// - Throws: `unknownKind`, `wrongConnection`, `reservedNotZero`, `lengthOutOfBounds`, `probeWithRun`.
    @inlinable
    package static func decode(_ bytes: UnsafeRawPointer) throws(ProtocolError) -> LaneFrame {
        let header = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self))
        let place = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        let first = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
        let run = PageRun(
            region: UInt32(truncatingIfNeeded: place),
            count: UInt32(truncatingIfNeeded: place >> 32),
            first: first
        )
        // One comparison checks the kind and the reserved field: if the field is not zero, the number is no known kind.
        guard let kind = Kind(number: header >> 32) else { throw refusal(header: header, run: run) }
        let body = UInt32(truncatingIfNeeded: header) &- 16
        let isSound: Bool
        switch kind {
        case .pageRequest, .zeroes, .aheadRequest, .sent: isSound = body == 0
        case .pages: isSound = body >= Wire.minPageSize && body <= Wire.maxPageSize
        case .pagesLZ4, .pagesZstd: isSound = body >= 1 && body < Wire.maxCompressedRunBytes
        case .probe: isSound = body == 0 && place | first == 0
        case .probeReply: isSound = body == Wire.probeReplyBytes && place | first == 0
        }
        guard isSound else { throw refusal(header: header, run: run) }
        return LaneFrame(kind: kind, run: run, bodyByteCount: body)
    }

    /// Reads a frame's 24 bytes as ``decode(_:)-(UnsafeRawPointer)`` does.
    ///
    /// - Parameter bytes: exactly 24 bytes.
    /// - Throws: what ``decode(_:)-(UnsafeRawPointer)`` throws, and `truncatedHeader`.
    @inlinable
    package static func decode(_ bytes: RawSpan) throws(ProtocolError) -> LaneFrame {
        guard bytes.byteCount == encodedByteCount else {
            throw .truncatedHeader(found: bytes.byteCount, needed: encodedByteCount)
        }
        return try bytes.withUnsafeBytes { (buffer) throws(ProtocolError) in
            guard let base = buffer.baseAddress else {
                throw ProtocolError.truncatedHeader(found: 0, needed: encodedByteCount)
            }
            return try decode(base)
        }
    }

    /// The error of a frame that is refused, kept out of the path of sound frames.
    @usableFromInline
    @inline(never)
    static func refusal(header: UInt64, run: PageRun) -> ProtocolError {
        let number = UInt16(truncatingIfNeeded: header >> 32)
        guard let kind = FrameKind(rawValue: number) else { return .unknownKind(number) }
        guard Kind(number: UInt64(number)) != nil else { return .wrongConnection(frame: kind, control: false) }
        guard header >> 48 == 0 else { return .reservedNotZero(frame: kind, found: header >> 48) }
        let length = header & 0xffff_ffff
        let bounds = UInt64(kind.payloadBounds.lowerBound)...UInt64(kind.payloadBounds.upperBound)
        guard bounds.contains(length) else {
            return .lengthOutOfBounds(frame: kind, found: length, allowed: bounds)
        }
        return .probeWithRun(frame: kind, run: run)
    }
}

extension LaneFrame.Kind {
    // Spelled out, since the compiler's own `init(rawValue:)` is not inlined into other modules.
    @inlinable
    init?(number: UInt64) {
        switch number {
        case 0x41: self = .pageRequest
        case 0x42: self = .pages
        case 0x43: self = .zeroes
        case 0x44: self = .probe
        case 0x45: self = .probeReply
        case 0x46: self = .aheadRequest
        case 0x47: self = .sent
        case 0x48: self = .pagesLZ4
        case 0x49: self = .pagesZstd
        default: return nil
        }
    }

    @inlinable
    var number: UInt64 {
        switch self {
        case .pageRequest: 0x41
        case .pages: 0x42
        case .zeroes: 0x43
        case .probe: 0x44
        case .probeReply: 0x45
        case .aheadRequest: 0x46
        case .sent: 0x47
        case .pagesLZ4: 0x48
        case .pagesZstd: 0x49
        }
    }
}

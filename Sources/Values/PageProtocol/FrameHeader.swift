/// The 8 bytes before every payload, with a kind that is known and a reserved field that is zero.
struct FrameHeader {
    let kind: FrameKind
    let length: UInt32

    init(_ bytes: RawSpan) throws(ProtocolError) {
        guard bytes.byteCount == Wire.headerByteCount else {
            throw .truncatedHeader(found: bytes.byteCount, needed: Wire.headerByteCount)
        }
        let word = UInt64(littleEndian: bytes.unsafeLoadUnaligned(as: UInt64.self))
        let number = UInt16(truncatingIfNeeded: word >> 32)
        guard let kind = FrameKind(rawValue: number) else { throw .unknownKind(number) }
        guard word >> 48 == 0 else { throw .reservedNotZero(frame: kind, found: word >> 48) }
        self.kind = kind
        self.length = UInt32(truncatingIfNeeded: word)
    }

    /// The payload's length in bytes, after a check that the kind allows it.
    func boundedLength() throws(ProtocolError) -> Int {
        try kind.requireLength(UInt64(length))
        return Int(length)
    }
}

extension FrameKind {
    func requireLength(_ length: UInt64) throws(ProtocolError) {
        let bounds = UInt64(payloadBounds.lowerBound)...UInt64(payloadBounds.upperBound)
        guard bounds.contains(length) else {
            throw .lengthOutOfBounds(frame: self, found: length, allowed: bounds)
        }
    }
}

import Identity

/// Reads the little-endian fields of one payload, each checked against the bytes that are left.
///
/// A reader lives only inside ``readAll(_:_:_:)``, which keeps the bytes alive.
struct WireReader {
    private let kind: FrameKind
    private let bytes: UnsafeRawBufferPointer
    private var offset = 0

    /// Reads a whole payload, and checks that the kind allows its length and that no bytes follow the last field.
    static func readAll<Value>(
        _ kind: FrameKind,
        _ payload: RawSpan,
        _ body: (inout WireReader) throws(ProtocolError) -> Value
    ) throws(ProtocolError) -> Value {
        try kind.requireLength(UInt64(payload.byteCount))
        return try payload.withUnsafeBytes { (bytes) throws(ProtocolError) in
            var reader = WireReader(kind: kind, bytes: bytes)
            let value = try body(&reader)
            guard reader.offset == bytes.count else {
                throw .trailingBytes(frame: kind, count: bytes.count - reader.offset)
            }
            return value
        }
    }

    mutating func readBytes(_ count: Int, _ field: String) throws(ProtocolError) -> Slice<UnsafeRawBufferPointer> {
        guard count <= bytes.count - offset else {
            throw .truncated(frame: kind, field: field, found: bytes.count - offset, needed: count)
        }
        defer { offset += count }
        return bytes[offset..<(offset + count)]
    }

    mutating func read<Number: FixedWidthInteger & BitwiseCopyable>(
        _ field: String
    ) throws(ProtocolError) -> Number {
        let slice = try readBytes(MemoryLayout<Number>.size, field)
        return Number(littleEndian: bytes.loadUnaligned(fromByteOffset: slice.startIndex, as: Number.self))
    }

    mutating func readValue<Value: RawRepresentable>(
        _ field: String
    ) throws(ProtocolError) -> Value where Value.RawValue == UInt8 {
        let number: UInt8 = try read(field)
        guard let value = Value(rawValue: number) else {
            throw .unknownValue(frame: kind, field: field, found: UInt64(number))
        }
        return value
    }

    mutating func readIdentifier<Subject>(_ field: String) throws(ProtocolError) -> Identifier<Subject> {
        let number: UInt128 = try read(field)
        // The bytes of an identifier travel in the order in which they are printed.
        return Identifier(number.byteSwapped)
    }

    mutating func readText(_ field: String, allowed: ClosedRange<Int>) throws(ProtocolError) -> String {
        let count: UInt16 = try read("length of \(field)")
        try require(
            UInt64(count),
            field: "length of \(field)",
            in: UInt64(allowed.lowerBound)...UInt64(allowed.upperBound)
        )
        let slice = try readBytes(Int(count), field)
        guard let text = String(validating: slice, as: UTF8.self) else {
            throw .invalidUTF8(frame: kind, field: field)
        }
        try Text.validate(text, frame: kind, field: field, allowed: allowed)
        return text
    }

    mutating func readReason() throws(ProtocolError) -> String {
        try readText("reason", allowed: 0...Wire.maxTextBytes)
    }

    mutating func readRest() -> [UInt8] {
        defer { offset = bytes.count }
        return [UInt8](bytes[offset...])
    }

    /// Reads magic and version, with which a HELLO and a JOIN of any version begin.
    mutating func readOpening() throws(ProtocolError) {
        let magic: UInt32 = try read("magic")
        guard magic == Wire.magic else { throw .wrongMagic(frame: kind, found: magic) }
        let version: UInt16 = try read("version")
        guard version == Wire.version else { throw .versionMismatch(found: version) }
    }

    mutating func readReserved() throws(ProtocolError) {
        let reserved: UInt8 = try read("reserved field")
        guard reserved == 0 else { throw .reservedNotZero(frame: kind, found: UInt64(reserved)) }
    }

    func require(_ value: UInt64, field: String, in allowed: ClosedRange<UInt64>) throws(ProtocolError) {
        guard allowed.contains(value) else {
            throw .outOfBounds(frame: kind, field: field, found: value, allowed: allowed)
        }
    }
}

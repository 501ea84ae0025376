import Identity

/// Builds one frame, little-endian, header first.
struct WireWriter {
    private let kind: FrameKind
    private var bytes: [UInt8]

    init(_ kind: FrameKind) {
        self.kind = kind
        bytes = [0, 0, 0, 0]
        append(kind.rawValue)
        append(UInt16(0))
    }

    mutating func append(_ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func append<Subject>(_ identifier: Identifier<Subject>) {
        // The bytes of an identifier travel in the order in which they are printed.
        withUnsafeBytes(of: identifier.value.bigEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func append(_ content: [UInt8]) {
        bytes.append(contentsOf: content)
    }

    mutating func append(_ text: String, field: String, allowed: ClosedRange<Int>) throws(ProtocolError) {
        try Text.validate(text, frame: kind, field: field, allowed: allowed)
        append(UInt16(text.utf8.count))
        bytes.append(contentsOf: text.utf8)
    }

    mutating func append(reason: String) {
        let fitted = Text.fitReason(reason)
        append(UInt16(fitted.utf8.count))
        bytes.append(contentsOf: fitted.utf8)
    }

    func require(_ value: UInt64, field: String, in allowed: ClosedRange<UInt64>) throws(ProtocolError) {
        guard allowed.contains(value) else {
            throw .outOfBounds(frame: kind, field: field, found: value, allowed: allowed)
        }
    }

    /// Returns the frame, with the payload's length in its header.
    consuming func finish() -> [UInt8] {
        let length = UInt32(bytes.count - Wire.headerByteCount)
        for index in 0..<4 {
            bytes[index] = UInt8(truncatingIfNeeded: length >> (8 * index))
        }
        return bytes
    }
}

/// The framing of the control connection.
package enum ControlFrame {
    /// Bytes of the header before every payload.
    package static let headerByteCount = Wire.headerByteCount

    /// Reads the 8-byte header of a control frame, before anything of its payload is read or allocated.
    ///
    /// - Parameter header: exactly 8 bytes.
    /// - Returns: a control kind, and the bytes of payload to read, inside the bounds of that kind.
    /// - Throws: `truncatedHeader`, `unknownKind`, `wrongConnection`, `reservedNotZero`, `lengthOutOfBounds`.
    package static func decodeHeader(_ header: RawSpan) throws(ProtocolError) -> (kind: FrameKind, length: Int) {
        let frame = try FrameHeader(header)
        guard frame.kind.isControl else { throw .wrongConnection(frame: frame.kind, control: true) }
        return (frame.kind, try frame.boundedLength())
    }
}

/// The first frame that an accepted connection may bring: it says which of the three connections this is.
public enum OpeningFrame: Hashable, Sendable {
    /// This is the control connection.
    case hello(Hello)
    /// This is the urgent or bulk connection of a migration.
    case join(Join)

    /// Reads the 8-byte header of an accepted connection's first frame.
    ///
    /// - Parameter header: exactly 8 bytes.
    /// - Returns: HELLO or JOIN and the bytes of payload to read, 8...4096.
    /// - Throws: `truncatedHeader`, `unknownKind`, `notAnOpening`, `reservedNotZero`, `lengthOutOfBounds`.
    public static func decodeHeader(_ header: RawSpan) throws(ProtocolError) -> (kind: FrameKind, length: Int) {
        let frame = try FrameHeader(header)
        guard frame.kind == .hello || frame.kind == .join else { throw .notAnOpening(frame.kind) }
        return (frame.kind, try frame.boundedLength())
    }

    /// Reads the payload of an accepted connection's first frame.
    ///
    /// Magic and version are judged before anything else, so that a peer of another version is named as such.
    ///
    /// - Throws: `wrongMagic`, `versionMismatch`, or what is wrong with the fields.
    public static func decode(kind: FrameKind, payload: RawSpan) throws(ProtocolError) -> OpeningFrame {
        guard kind == .hello || kind == .join else { throw .notAnOpening(kind) }
        return try WireReader.readAll(kind, payload) { (reader) throws(ProtocolError) in
            kind == .join ? .join(try Join(from: &reader)) : .hello(try Hello(from: &reader))
        }
    }
}

/// The first frame that an accepted connection may bring: it says which of the three connections this is.
package enum OpeningFrame: Hashable, Sendable {
    /// The control connection.
    case hello(Hello)
    /// An urgent or bulk connection of a migration.
    case join(Join)

    /// Reads the 8-byte header of an accepted connection's first frame.
    ///
    /// - Parameter header: exactly 8 bytes.
    /// - Returns: HELLO or JOIN and the bytes of payload to read, 8...4096.
    /// - Throws: `truncatedHeader`, `unknownKind`, `notAnOpening`, `reservedNotZero`, `lengthOutOfBounds`.
    package static func decodeHeader(_ header: RawSpan) throws(ProtocolError) -> (kind: FrameKind, length: Int) {
        let frame = try FrameHeader(header)
        guard frame.kind == .hello || frame.kind == .join else { throw .notAnOpening(frame.kind) }
        return (frame.kind, try frame.boundedLength())
    }

    /// Reads the payload of an accepted connection's first frame.
    ///
    /// Magic and version are checked first, so that the error for a peer of another version names the versions.
    ///
    /// - Throws: `wrongMagic`, `versionMismatch`, or the error of the first bad field.
    package static func decode(kind: FrameKind, payload: RawSpan) throws(ProtocolError) -> OpeningFrame {
        guard kind == .hello || kind == .join else { throw .notAnOpening(kind) }
        return try WireReader.readAll(kind, payload) { (reader) throws(ProtocolError) in
            kind == .join ? .join(try Join(from: &reader)) : .hello(try Hello(from: &reader))
        }
    }
}

import LinuxSystem
import PageProtocol

/// The frame that is arriving on a control connection.
struct PartialFrame {
    /// What a receive has brought.
    enum Arrival {
        case message(ControlMessage)
        /// The rest of the frame has not arrived.
        case incomplete
        /// The peer has closed the connection between two frames.
        case closed
    }

    /// The bytes for which a frame gets memory at first; more memory comes as the bytes do.
    private static let firstBytes = 16 << 10

    /// The header, and behind it as much of the payload as there is memory for.
    private var bytes = [UInt8](repeating: 0, count: ControlFrame.headerByteCount)
    /// Bytes that have arrived.
    private var filled = 0
    /// The kind of the frame and the length of its payload, once the header has arrived.
    private var header: (kind: FrameKind, length: Int)?

    /// Receives what has arrived of the frame, and no byte after it.
    mutating func receive(from socket: borrowing StreamSocket) throws -> Arrival {
        while true {
            if filled == bytes.count {
                if let message = try decode() { return .message(message) }
                continue
            }
            let received = try bytes.withUnsafeMutableBytes { [filled] in
                try socket.receiveNow(into: UnsafeMutableRawBufferPointer(rebasing: $0[filled...]))
            }
            guard let received else { return .incomplete }
            guard received > 0 else {
                if filled == 0 { return .closed }
                throw TruncatedFrame(peer: socket.peer)
            }
            filled += received
        }
    }

    /// Decodes the frame if it is complete, and otherwise makes room for more of it.
    private mutating func decode() throws -> ControlMessage? {
        let (kind, length) = try header ?? ControlFrame.decodeHeader(bytes.span.bytes)
        header = (kind, length)
        let missing = ControlFrame.headerByteCount + length - filled
        guard missing == 0 else {
            bytes += [UInt8](repeating: 0, count: min(missing, max(Self.firstBytes, filled)))
            return nil
        }
        let payload = bytes.dropFirst(ControlFrame.headerByteCount)
        defer { self = PartialFrame() }
        return try payload.withUnsafeBytes { try ControlMessage.decode(kind: kind, payload: $0.bytes) }
    }
}

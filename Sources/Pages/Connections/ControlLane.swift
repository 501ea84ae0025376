package import LinuxSystem
package import PageProtocol

/// The control connection to one peer.
///
/// Two threads serve it, or the two threads that serve many connections together: see ``ControlThreads``.
package final class ControlLane: Sendable {
    /// An event of the connection, delivered in order from one of its threads.
    package enum Event: Sendable {
        /// A message of the peer, with its place in the inbox until the message has been handled.
        case message(ControlMessage, Inbox.Slot)
        /// The connection broke, or must be closed; later events do not count.
        case lost(reason: String)
        /// The peer exceeded a time limit; later events do not count.
        case silent(reason: String)
    }

    /// The number of a PING that only checks whether the peer is alive.
    package static let anybody: UInt64 = 0

    private let connection: ControlConnection
    private let patience: Task<Void, any Error>
    /// The threads of this connection alone; nil if others share them.
    private let ownThreads: ControlThreads?

    /// Takes over a connected socket.
    ///
    /// - Parameters:
    ///   - socket: the connection.
    ///   - setupTime: the time from now until ``allowSilence()``, in which the peer must say all that it has to say
    ///     before both sides are ready. Nil for 10 s, or for `peerTimeout` if that is longer.
    ///   - peerTimeout: the longest silence of the peer.
    ///   - threads: the threads of many connections, which serve this one too; nil for threads of its own.
    ///   - onEvent: called from the connection's threads; must not block, and must not end the connection.
    package init(
        _ socket: consuming StreamSocket,
        setupTime: Duration? = nil,
        peerTimeout: Duration,
        threads: ControlThreads? = nil,
        onEvent: @escaping @Sendable (Event) -> Void
    ) throws(SystemError) {
        try socket.tolerateSilence(of: peerTimeout)
        let setupTime = setupTime ?? max(.seconds(10), peerTimeout)
        ownThreads = threads == nil ? try ControlThreads(peerTimeout: peerTimeout) : nil
        guard let threads = threads ?? ownThreads else { preconditionFailure("the threads were just made") }
        connection = ControlConnection(SharedSocket(socket), threads, peerTimeout: peerTimeout, onEvent: onEvent)
        patience = Task(priority: .high) { [peer = connection.socket.stream.peer] in
            try await Task.sleep(for: setupTime)
            onEvent(.silent(reason: "\(peer) was not ready within \(setupTime.text)"))
        }
        do throws(SystemError) {
            try threads.add(connection)
        } catch {
            patience.cancel()
            ownThreads?.stop()
            throw error
        }
    }

    deinit {
        finish()
    }

    /// The address of the peer, as text.
    package var peer: String { connection.socket.stream.peer }

    /// Queues a message to be sent; a broken connection drops it.
    ///
    /// - Throws: the error of a message that the peer would refuse.
    package func send(_ message: ControlMessage) throws(ProtocolError) {
        connection.put(try message.encode())
    }

    /// Queues an encoded frame to be sent; a broken connection drops it.
    package func send(frame: [UInt8]) {
        connection.put(frame)
    }

    /// Whether the peer's host has acknowledged every byte of the queued frames.
    package var isDrained: Bool { connection.isDrained }

    /// Ends the time limit of the setup: the peer may now wait for its operator without a limit.
    package func allowSilence() {
        patience.cancel()
    }

    /// Closes the connection after all queued frames were sent, and waits for that.
    ///
    /// The last event is ``Event/lost(reason:)``, before the return.
    package func finish() {
        patience.cancel()
        connection.finish()
        ownThreads?.stop()
    }
}

extension ControlLane {
    /// Encodes a message of a kind that has no bounds to exceed.
    static func frame(_ message: ControlMessage) -> [UInt8] {
        do throws(ProtocolError) {
            return try message.encode()
        } catch {
            // The callers pass only kinds of message that have no bounds.
            preconditionFailure("\(message.kind) is always inside its bounds")
        }
    }

    /// Receives one message.
    ///
    /// - Returns: nil if the peer has closed the connection between two messages.
    /// - Throws: a `SystemError` of the socket, a `ProtocolError`, or an error if the peer closed the connection in a
    ///   frame.
    package static func receive(from socket: borrowing StreamSocket) throws -> ControlMessage? {
        guard let header = try receive(ControlFrame.headerByteCount, from: socket, mayEnd: true) else { return nil }
        let (kind, length) = try ControlFrame.decodeHeader(header.span.bytes)
        let payload = try receive(length, from: socket, mayEnd: false) ?? []
        return try ControlMessage.decode(kind: kind, payload: payload.span.bytes)
    }

    /// Reads what has arrived of a connection's first frame, and no byte after that frame.
    ///
    /// - Parameters:
    ///   - socket: the connection, which is not waited for.
    ///   - bytes: the bytes of the frame that earlier calls have read.
    /// - Returns: nil until the whole frame has arrived.
    static func readOpening(
        from socket: borrowing StreamSocket,
        into bytes: inout [UInt8]
    ) throws -> OpeningFrame? {
        while true {
            var missing = ControlFrame.headerByteCount - bytes.count
            var kind: FrameKind?
            if missing <= 0 {
                let header = Array(bytes.prefix(ControlFrame.headerByteCount))
                let (found, length) = try OpeningFrame.decodeHeader(header.span.bytes)
                (kind, missing) = (found, ControlFrame.headerByteCount + length - bytes.count)
            }
            if missing == 0, let kind {
                let payload = Array(bytes.dropFirst(ControlFrame.headerByteCount))
                return try OpeningFrame.decode(kind: kind, payload: payload.span.bytes)
            }
            var piece = [UInt8](repeating: 0, count: missing)
            guard let count = try piece.withUnsafeMutableBytes({ try socket.receiveNow(into: $0) }) else { return nil }
            guard count > 0 else {
                if bytes.isEmpty { throw NothingSent() }
                throw TruncatedFrame(peer: socket.peer)
            }
            bytes += piece.prefix(count)
        }
    }

    /// Receives exactly `count` bytes, whose bound the caller has checked.
    ///
    /// - Returns: nil if `mayEnd` and the peer has closed the connection before the first byte.
    private static func receive(
        _ count: Int,
        from socket: borrowing StreamSocket,
        mayEnd: Bool
    ) throws -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        let received = try bytes.withUnsafeMutableBytes { try socket.receive(exactly: $0) }
        if received == count { return bytes }
        if received == 0, mayEnd { return nil }
        throw TruncatedFrame(peer: socket.peer)
    }
}

/// The error of a peer that closed a new connection before it sent anything.
///
/// Load balancers and other programs only look whether somebody listens, and so does `attach` at its start.
struct NothingSent: Error {}

/// The error of a peer that closed the connection in the middle of a frame.
struct TruncatedFrame: Error, CustomStringConvertible {
    let peer: String
    var description: String { "\(peer) closed the connection in the middle of a frame" }
}

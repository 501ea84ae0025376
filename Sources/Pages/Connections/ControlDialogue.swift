package import LinuxSystem
package import PageProtocol
import Synchronization

/// The control connection of a client that mostly waits, on the thread that calls; unlike a ``ControlLane``, it has no
/// threads of its own.
///
/// One thread calls ``send(_:)``, ``answer(within:)`` and ``next()``, and any thread ``close()``.
package final class ControlDialogue: Sendable {
    /// What one thread knows of the connection.
    private struct State {
        var frame = PartialFrame()
        /// When the peer's latest message arrived, and when the next PING is due, of ``MonotonicClock``.
        var heard = MonotonicClock.now()
        var pingAt = MonotonicClock.now()
        var pace = MessagePace()
    }

    private let socket: StreamSocket
    private let peerTimeout: Duration
    private let interval: UInt64
    private let state = Mutex(State())
    private let closing: EventDescriptor

    /// Takes over a connected socket.
    ///
    /// - Parameters:
    ///   - socket: the connection.
    ///   - peerTimeout: the longest silence of the peer. A PING is sent each second, or four times within `peerTimeout`
    ///     if that is shorter.
    package init(_ socket: consuming StreamSocket, peerTimeout: Duration) throws(SystemError) {
        try socket.tolerateSilence(of: peerTimeout)
        self.socket = socket
        self.peerTimeout = peerTimeout
        interval = UInt64(ControlThreads.interval(peerTimeout) / .nanoseconds(1))
        closing = try EventDescriptor()
    }

    /// The address of the peer, as text.
    package var peer: String { socket.peer }

    /// Sends a message.
    ///
    /// - Throws: the error of a message that the peer would refuse, or of the connection.
    package func send(_ message: ControlMessage) throws {
        let frame = try message.encode()
        try socket.send(frame, before: MonotonicClock.now() + UInt64(peerTimeout / .nanoseconds(1)))
    }

    /// Waits for the peer's answer during the setup of a session.
    ///
    /// - Throws: an error if the peer does not answer in time or breaks the protocol, or the connection breaks.
    package func answer(within time: Duration) throws -> ControlMessage {
        guard let message = try next(before: MonotonicClock.now() + UInt64(time / .nanoseconds(1))) else {
            throw PeerNotReady(peer: peer, time: time)
        }
        return message
    }

    /// Waits for the peer's next message, and answers and sends PINGs meanwhile.
    ///
    /// - Returns: nil once ``close()`` was called; the peer was sent BYE.
    /// - Throws: an error if the peer is silent for too long or breaks the protocol, or the connection breaks.
    package func next() throws -> ControlMessage? { try next(before: .max) }

    /// Ends the connection: the thread that waits sends BYE.
    package func close() { closing.raise() }

    private func next(before deadline: UInt64) throws -> ControlMessage? {
        try state.withLock { state in
            while true {
                receiving: while true {
                    let message: ControlMessage
                    switch try state.frame.receive(from: socket) {
                    case .incomplete: break receiving
                    case .closed: throw PeerClosed(peer: peer)
                    case .message(let whole): message = whole
                    }
                    let now = MonotonicClock.now()
                    state.heard = now
                    guard state.pace.admits(message, at: now) else { throw MessageFlood(peer: peer) }
                    switch message {
                    case .ping(ControlLane.anybody): try send(.pong(ControlLane.anybody))
                    case .pong(ControlLane.anybody): break
                    default: return message
                    }
                }
                let now = MonotonicClock.now()
                guard now < deadline else { return nil }
                let silence = MonotonicClock.time(since: state.heard)
                guard silence <= peerTimeout else { throw PeerSilent(peer: peer, silence: silence) }
                if now >= state.pingAt {
                    state.pingAt = now + interval
                    try send(.ping(ControlLane.anybody))
                }
                switch try socket.waitToReceive(or: closing, before: min(deadline, state.pingAt)) {
                case .data, .time: break
                case .flag:
                    // A peer that has left needs no BYE.
                    try? send(.bye)
                    socket.shutdown()
                    return nil
                }
            }
        }
    }
}

/// The error of a peer that has sent nothing for too long.
struct PeerSilent: Error, CustomStringConvertible {
    let peer: String
    let silence: Duration
    var description: String { "\(peer) has been silent for \(silence.text)" }
}

/// The error of a peer that has not given its answer in time.
struct PeerNotReady: Error, CustomStringConvertible {
    let peer: String
    let time: Duration
    var description: String { "\(peer) was not ready within \(time.text)" }
}

/// The error of a peer that closed the connection between two messages.
struct PeerClosed: Error, CustomStringConvertible {
    let peer: String
    var description: String { "\(peer) closed the connection" }
}

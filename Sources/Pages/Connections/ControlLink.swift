package import LinuxSystem
package import Logging
package import PageProtocol
import Synchronization

/// The control connection to one peer; when it ends, both sides learn the reason.
package final class ControlLink: Sendable {
    /// An event of the link.
    package enum Event: Sendable {
        /// A message of the peer, and its place in the inbox, to be held until the message is handled.
        case message(ControlMessage, Inbox.Slot)
        /// The connection broke.
        case broken(reason: String)
        /// The link must end: the peer has been silent for too long.
        case silent(reason: String)
        /// The link must end: a page lane broke, or a message cannot be sent.
        case failed(reason: String)
    }

    /// The time in which the control connection may still bring a reason after a page lane has broken.
    package static let lastWordTime = Duration.milliseconds(200)

    private let lane: ControlLane
    private let hangUps: BlockingWork
    private let logger: Logger
    private let report: @Sendable (Event, _ time: Duration?) -> Void
    private let hasLostLane = Atomic(false)

    /// Takes over a connected socket.
    ///
    /// - Parameters:
    ///   - socket: the connection.
    ///   - peerTimeout: the longest silence of the peer.
    ///   - threads: the threads of many links, which serve this one too; nil for threads of its own.
    ///   - hangUps: runs the close, which a peer that does not read can delay for seconds.
    ///   - logger: receives the reason if a message cannot be sent.
    ///   - events: receives the link's events.
    ///   - event: makes the session's event from the link's.
    package init<SessionEvent>(
        _ socket: consuming StreamSocket,
        peerTimeout: Duration,
        threads: ControlThreads? = nil,
        hangUps: BlockingWork,
        logger: Logger,
        events: EventQueue<SessionEvent>,
        as event: @escaping @Sendable (Event) -> SessionEvent
    ) throws(SystemError) {
        self.hangUps = hangUps
        self.logger = logger
        report = { one, time in
            if let time { events.add(event(one), after: time) } else { events.add(event(one)) }
        }
        lane = try ControlLane(socket, peerTimeout: peerTimeout, threads: threads) { [report] one in
            switch one {
            case .message(let message, let slot): report(.message(message, slot), nil)
            case .lost(let reason): report(.broken(reason: reason), nil)
            case .silent(let reason): report(.silent(reason: reason), nil)
            }
        }
    }

    /// The address of the peer, as text.
    package var peer: String { lane.peer }

    /// Queues a message to be sent; a broken connection drops it.
    ///
    /// A message that exceeds the protocol's bounds is not sent, and fails the link.
    package func send(_ message: ControlMessage) {
        do throws(ProtocolError) {
            try lane.send(message)
        } catch {
            logger.error("cannot send \(message.kind): \(error)")
            fail("\(error)")
        }
    }

    /// Queues an encoded frame to be sent; a broken connection drops it.
    package func send(frame: [UInt8]) {
        lane.send(frame: frame)
    }

    /// Whether the peer's host has acknowledged every byte of the queued frames.
    package var isDrained: Bool { lane.isDrained }

    /// Ends the time limit of the setup: the peer may now wait for its operator without a limit.
    package func allowSilence() {
        lane.allowSilence()
    }

    /// Reports that the link must end, after the events that were reported before.
    package func fail(_ reason: String) {
        report(.failed(reason: reason), nil)
    }

    /// Reports that the link must end because a page lane broke, once the control connection has had time to bring a
    /// better reason.
    ///
    /// A peer that hangs up closes its connections in any order. Only the first call counts: further lanes break
    /// because the first one did, and add no reason.
    ///
    /// - Parameters:
    ///   - broken: the lane that broke.
    ///   - reason: why it broke.
    ///   - time: the time for the better reason.
    package func laneLost(_ broken: Lane, reason: String, wait time: Duration = lastWordTime) {
        guard !hasLostLane.exchange(true, ordering: .relaxed) else { return }
        report(.failed(reason: "the \(broken) lane broke: \(reason)"), time)
    }

    /// Closes the connection after all queued messages were sent, without waiting for that.
    ///
    /// - Parameters:
    ///   - endLanes: called first, since a peer that does not read can hold up the close while its lanes are served.
    ///   - onEnd: called once the connection is closed.
    package func close(
        endingLanes endLanes: @escaping @Sendable () -> Void = {},
        onEnd: @escaping @Sendable () -> Void = {}
    ) {
        hangUps.run("hang-up") { [lane] in
            endLanes()
            lane.finish()
            onEnd()
        }
    }
}

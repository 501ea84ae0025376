package import Identity
package import LinuxSystem
package import Logging
package import PageProtocol
import Synchronization

/// Accepts connections and reads the first frame of each, which says if the connection is a control, urgent or bulk
/// lane.
package final class LaneAcceptor: Sendable {
    /// A connection whose first frame has arrived.
    package struct Arrival: Sendable {
        /// The connection.
        package let socket: Handover<StreamSocket>
        /// The first frame.
        package let opening: OpeningFrame
        /// The place of this connection among those that wait to be handled.
        private let slot: Inbox.Slot

        fileprivate init(_ socket: Handover<StreamSocket>, _ opening: OpeningFrame, _ slot: Inbox.Slot) {
            self.socket = socket
            self.opening = opening
            self.slot = slot
        }
    }

    /// The limit on connections whose first frame has arrived and that wait to be handled.
    private static let waitingLimit = 64

    /// The most ended links that are remembered.
    private static let endedLimit = 16

    private let logger: Logger
    /// The nonces of the links that ended last, the newest one at the end.
    private let ended = Mutex<[Nonce]>([])
    private let openings: Openings<OpeningFrame>
    private let waiting: WaitingRoom
    private let receiver: Receiver

    /// The places for connections that wait to be handled; the accepting thread waits while all are taken.
    private final class WaitingRoom: Sendable {
        private let inbox = Inbox(limit: LaneAcceptor.waitingLimit)
        private let isClosed = Atomic<Bool>(false)
        /// Raised when a place may be free, and for the end.
        private let flag: EventDescriptor

        init() throws(SystemError) {
            flag = try EventDescriptor()
            inbox.onRoom { [weak self] in self?.flag.raise() }
        }

        /// Takes a place, waiting for one if need be; nil after ``close()``.
        func enter() -> Inbox.Slot? {
            while !isClosed.load(ordering: .acquiring) {
                if let slot = inbox.enter() { return slot }
                flag.wait()
                flag.clear()
            }
            return nil
        }

        func close() {
            isClosed.store(true, ordering: .releasing)
            flag.raise()
        }
    }

    /// The function that is called with arrivals, which can be replaced.
    private final class Receiver: Sendable {
        private let onArrival: Mutex<@Sendable (Arrival) -> Void>

        init(_ onArrival: @escaping @Sendable (Arrival) -> Void) { self.onArrival = Mutex(onArrival) }

        func set(_ onArrival: @escaping @Sendable (Arrival) -> Void) { self.onArrival.withLock { $0 = onArrival } }

        func tell(_ arrival: Arrival) {
            let onArrival = onArrival.withLock(\.self)
            onArrival(arrival)
        }
    }

    /// Listens at an address and starts the accepting thread.
    ///
    /// - Parameters:
    ///   - address: the address to listen at; port 0 lets the kernel choose.
    ///   - logger: for lines about connections that are refused or cannot be accepted.
    ///   - onArrival: called with each connection whose first frame has arrived; must not block.
    package init(
        at address: SocketAddress,
        logger: Logger,
        onArrival: @escaping @Sendable (Arrival) -> Void
    ) throws(SystemError) {
        self.logger = logger
        let (waiting, receiver) = (try WaitingRoom(), Receiver(onArrival))
        (self.waiting, self.receiver) = (waiting, receiver)
        let listener = try Listener(at: address)
        let bound = listener.address
        openings = try Openings(
            listener,
            name: "accept",
            Openings.Handling(
                read: { socket, bytes in try ControlLane.readOpening(from: socket, into: &bytes) },
                open: { socket, opening in
                    if let slot = waiting.enter() { receiver.tell(Arrival(socket, opening, slot)) }
                },
                drop: { LaneAcceptor.drop($0, because: $1, logger: logger) },
                onShortage: { logger.error("cannot accept a connection yet: \($0)") },
                onEnd: { logger.error("stopped accepting connections at \(bound): \($0)") }
            )
        )
    }

    /// The address of the listener, with the port that the kernel chose.
    package var address: SocketAddress { openings.address }

    /// Replaces the function that is called with later arrivals.
    package func deliver(to onArrival: @escaping @Sendable (Arrival) -> Void) {
        receiver.set(onArrival)
    }

    /// Tells whoever is told of arrivals now of one that somebody else was told of before.
    package func deliver(_ arrival: Arrival) {
        receiver.tell(arrival)
    }

    /// Stops listening.
    package func close() {
        openings.close()
        waiting.close()
    }

    /// Stops listening and waits for the accepting thread to exit.
    package func stop() {
        close()
        openings.stop()
    }

    /// Notes the end of a link, whose lanes may still come: the peer may connect them before it reads why the link ends.
    package func noteEnd(ofLinkWith nonce: Nonce) {
        ended.withLock { ended in
            if ended.count == LaneAcceptor.endedLimit { ended.removeFirst() }
            ended.append(nonce)
        }
    }

    /// Refuses a lane that no link waits for.
    ///
    /// A lane of a link that has just ended adds no line to the log: the log already names the reason of that end.
    package func refuseLane(_ socket: consuming StreamSocket, _ join: Join) {
        guard ended.withLock({ $0.contains(join.nonce) }) else {
            let lane = join.index > 0 ? "\(join.lane) lane \(join.index)" : "\(join.lane) lane"
            return refuse(socket, reason: "no migration of that id and nonce waits for its \(lane)")
        }
        LaneAcceptor.tell(socket, .refused(reason: "the link of this \(join.lane) lane has ended"))
    }

    /// Sends REFUSED with the reason to the peer and closes the connection.
    ///
    /// REFUSED means that the peer would be refused again. A peer that has left is ignored.
    package func refuse(_ socket: consuming StreamSocket, reason: String) {
        LaneAcceptor.turnAway(socket, reason: reason, by: ControlMessage.refused, logger: logger)
    }

    /// Closes a connection whose first frame did not arrive or is not valid.
    ///
    /// A peer that sent bytes that are not valid would send them again, and gets REFUSED. Any other peer may reconnect,
    /// and gets FAILURE.
    private static func drop(_ socket: consuming StreamSocket, because error: any Error, logger: Logger) {
        switch error {
        case is NothingSent: logger.debug("\(socket.peer) has connected, and left without a frame")
        case is OpeningRefusal, is SystemError, is TruncatedFrame:
            turnAway(socket, reason: "\(error)", by: ControlMessage.failure, logger: logger)
        default: turnAway(socket, reason: "\(error)", by: ControlMessage.refused, isLasting: false, logger: logger)
        }
    }

    private static func turnAway(
        _ socket: consuming StreamSocket,
        reason: String,
        by message: (_ reason: String) -> ControlMessage,
        isLasting: Bool = true,
        logger: Logger
    ) {
        // Each connection comes from another port. An agent that was stopped for a while finds many that are all
        // refused.
        let host = socket.peer.split(separator: ":").dropLast().joined(separator: ":")
        logger.warning(
            "refused a connection from \(socket.peer): \(reason)",
            metadata: isLasting ? ["lasting": "\(host) \(reason)"] : nil
        )
        tell(socket, message(reason))
    }

    /// Sends the last message to a peer, and closes the connection.
    private static func tell(_ socket: consuming StreamSocket, _ message: ControlMessage) {
        // `encode` does not throw here, since it cuts the reason to what the frame can hold.
        guard let frame = try? message.encode() else { return }
        // The peer may already have left.
        try? socket.send(frame)
    }
}

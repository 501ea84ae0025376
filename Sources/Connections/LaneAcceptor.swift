public import LinuxSystem
public import Logging
public import PageProtocol
import Synchronization

/// Accepts connections: reads the first frame of each, which says which of the three it is.
public final class LaneAcceptor: Sendable {
    /// A connection that has said what it is.
    public struct Arrival: Sendable {
        /// The connection.
        public let socket: Handover<StreamSocket>
        /// What it said.
        public let opening: OpeningFrame
        /// Its place among those that wait to be dealt with.
        private let slot: Inbox.Slot

        fileprivate init(_ socket: Handover<StreamSocket>, _ opening: OpeningFrame, _ slot: Inbox.Slot) {
            self.socket = socket
            self.opening = opening
            self.slot = slot
        }
    }

    /// Connections that have said what they are and that nobody has dealt with yet.
    private static let waitingLimit = 64

    private let logger: Logger
    private let openings: Openings<OpeningFrame>
    private let inbox: Inbox
    private let receiver: Receiver

    /// Who is told of arrivals; another may take that over.
    private final class Receiver: Sendable {
        private let onArrival: Mutex<@Sendable (Arrival) -> Void>

        init(_ onArrival: @escaping @Sendable (Arrival) -> Void) { self.onArrival = Mutex(onArrival) }

        func set(_ onArrival: @escaping @Sendable (Arrival) -> Void) { self.onArrival.withLock { $0 = onArrival } }

        func tell(_ arrival: Arrival) {
            let onArrival = onArrival.withLock(\.self)
            onArrival(arrival)
        }
    }

    /// Listens at an address.
    ///
    /// - Parameter onArrival: called with each connection that has said what it is; must not block.
    public init(
        at address: SocketAddress,
        logger: Logger,
        onArrival: @escaping @Sendable (Arrival) -> Void
    ) throws(SystemError) {
        self.logger = logger
        let (inbox, receiver) = (try Inbox(limit: LaneAcceptor.waitingLimit), Receiver(onArrival))
        (self.inbox, self.receiver) = (inbox, receiver)
        let listener = try Listener(at: address)
        let bound = listener.address
        openings = try Openings(
            listener,
            name: "accept",
            Openings.Handling(
                read: { socket, bytes in try ControlLane.readOpening(from: socket, into: &bytes) },
                open: { socket, opening in
                    if let slot = inbox.enter() { receiver.tell(Arrival(socket, opening, slot)) }
                },
                drop: { LaneAcceptor.drop($0, because: $1, logger: logger) },
                onShortage: { logger.error("a connection waits: \($0)") },
                onEnd: { logger.error("no further connections are accepted at \(bound): \($0)") }
            )
        )
    }

    /// Where it listens, with the port the kernel chose.
    public var address: SocketAddress { openings.address }

    /// From now on somebody else is told of arrivals.
    public func deliver(to onArrival: @escaping @Sendable (Arrival) -> Void) {
        receiver.set(onArrival)
    }

    /// Ends the listening.
    public func close() {
        openings.close()
        inbox.close()
    }

    /// Ends the listening and waits for its thread.
    public func stop() {
        close()
        openings.stop()
    }

    /// Tells a peer that means to speak the protocol why it is not wanted, now or later, if it is still there, and hangs
    /// up.
    public func refuse(_ socket: consuming StreamSocket, reason: String) {
        LaneAcceptor.turnAway(socket, reason: reason, by: ControlMessage.refused, logger: logger)
    }

    /// A peer that said what makes no sense will again; any other may come again.
    private static func drop(_ socket: consuming StreamSocket, because error: any Error, logger: Logger) {
        switch error {
        case is OpeningRefusal, is SystemError, is TruncatedFrame:
            turnAway(socket, reason: "\(error)", by: ControlMessage.failure, logger: logger)
        default: turnAway(socket, reason: "\(error)", by: ControlMessage.refused, logger: logger)
        }
    }

    private static func turnAway(
        _ socket: consuming StreamSocket,
        reason: String,
        by message: (_ reason: String) -> ControlMessage,
        logger: Logger
    ) {
        logger.warning("refused a connection from \(socket.peer): \(reason)")
        guard let frame = try? message(reason).encode() else { return }
        try? socket.send(frame)
    }
}

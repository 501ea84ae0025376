import Glibc
public import LinuxSystem
public import Logging
public import PageProtocol
import Synchronization

/// Accepts connections: reads the first frame of each, which says which of the three it is.
public final class LaneAcceptor: Sendable {
    /// Seconds for a connection to say what it is.
    private static let openingTimeout: UInt64 = 5

    private let listener: Listener
    private let openingLimit: Int
    private let logger: Logger
    private let onArrival: @Sendable (Handover<StreamSocket>, OpeningFrame) -> Void
    private let openings = ThreadGroup()
    private let thread = Mutex<JoinedThread?>(nil)

    /// Listens at an address.
    ///
    /// - Parameters:
    ///   - openingLimit: connections that have not said yet what they are; further ones are refused.
    ///   - onArrival: called with each connection that has said what it is; must not block.
    public init(
        at address: SocketAddress,
        openingLimit: Int = 32,
        logger: Logger,
        onArrival: @escaping @Sendable (Handover<StreamSocket>, OpeningFrame) -> Void
    ) throws(SystemError) {
        listener = try Listener(at: address)
        self.openingLimit = openingLimit
        self.logger = logger
        self.onArrival = onArrival
        var thread: JoinedThread? = try JoinedThread(name: "accept") { [self] in run() }
        self.thread.withLock { swap(&thread, &$0) }
    }

    /// Where it listens, with the port the kernel chose.
    public var address: SocketAddress { listener.address }

    /// Ends the listening.
    public func close() {
        listener.shutdown()
        listener.file?.remove()
    }

    /// Ends the listening and waits for its threads, seconds where somebody has connected and says nothing.
    public func stop() {
        close()
        var thread: JoinedThread? = nil
        self.thread.withLock { swap(&thread, &$0) }
        thread = nil
        openings.join()
    }

    private func run() {
        do throws(SystemError) {
            try listener.takeAll(onShortage: { logger.error("a connection waits: \($0)") }) { handover in
                if let socket = handover.take() { take(socket) }
            }
        } catch {
            logger.error("no further connections are accepted at \(listener.address): \(error)")
        }
    }

    private func take(_ socket: consuming StreamSocket) {
        guard openings.count < openingLimit else {
            return turnAway(socket, reason: "too many wait to say what they are", by: ControlMessage.failure)
        }
        let refusal = "refused a connection from \(socket.peer)"
        take(Handover(socket), refusal: refusal)
    }

    private func take(_ handover: Handover<StreamSocket>, refusal: String) {
        do throws(SystemError) {
            try openings.run("open") { [self] in
                if let socket = handover.take() { open(socket) }
            }
        } catch {
            logger.warning("\(refusal): \(error)")
        }
    }

    private func open(_ socket: consuming StreamSocket) {
        do {
            let deadline = MonotonicClock.now() + LaneAcceptor.openingTimeout * 1_000_000_000
            let opening = try ControlLane.receiveOpening(from: socket, before: deadline)
            onArrival(Handover(socket), opening)
        } catch let error as SystemError {
            turnAway(socket, reason: "\(error)", by: ControlMessage.failure)
        } catch {
            refuse(socket, reason: "\(error)")
        }
    }

    /// Tells a peer that means to speak the protocol why it is not wanted, now or later, if it is still there, and hangs
    /// up.
    public func refuse(_ socket: consuming StreamSocket, reason: String) {
        turnAway(socket, reason: reason, by: ControlMessage.refused)
    }

    /// What passes is a failure: the peer may come again.
    private func turnAway(
        _ socket: consuming StreamSocket,
        reason: String,
        by message: (_ reason: String) -> ControlMessage
    ) {
        logger.warning("refused a connection from \(socket.peer): \(reason)")
        guard let frame = try? message(reason).encode() else { return }
        try? socket.send(frame)
    }
}

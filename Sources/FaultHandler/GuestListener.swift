import Attachments
public import LinuxSystem
public import Logging
import Synchronization

/// Takes the guests that hand their memory over at a Unix socket, and has each of them served.
public final class GuestListener: Sendable {
    private typealias Message = StreamSocket.DescriptorMessage

    /// Where it listens.
    public let address: SocketAddress
    private let openings: Openings<Handover<Message>>
    private let guests: ThreadGroup
    private let failure: Failure

    private final class Failure: Sendable {
        let error = Mutex<SystemError?>(nil)
    }

    /// Takes guests from now on.
    ///
    /// - Parameter path: the socket to make, mode 0600.
    public init(at path: String, settings: HandlerSettings, logger: Logger) throws {
        let address = SocketAddress.unix(path: path)
        let (guests, failure) = (ThreadGroup(), Failure())
        (self.address, self.guests, self.failure) = (address, guests, failure)
        let refuse: @Sendable (String, any Error) -> Void = { peer, error in
            logger.warning("refused \(peer) at \(address): \(error)")
        }
        openings = try Openings(
            Listener(at: address),
            name: "attach",
            Openings<Handover<Message>>.Handling(
                read: { socket, _ in Handover(try socket.receiveDescriptors(maxBytes: FirecrackerHandOff.maxBytes)) },
                open: { (socket, message) throws(SystemError) in
                    // Each on a thread of its own, for as long as the guest is served.
                    try guests.run("guest") {
                        guard let socket = socket.take(), let message = message.take() else { return }
                        let peer = socket.peer
                        do {
                            let guest = try FirecrackerGuest(from: socket, message)
                            var session = GuestSession(guest, at: address, settings, logger: logger)
                            session.run()
                        } catch {
                            refuse(peer, error)
                        }
                    }
                },
                drop: { refuse($0.peer, $1) },
                onShortage: { logger.error("a guest waits to attach: \($0)") },
                onEnd: { error in failure.error.withLock { $0 = error } }
            )
        )
    }

    /// Takes no more guests.
    public func close() {
        openings.close()
    }

    /// Returns when the listener was closed and those that have come are served no longer.
    ///
    /// - Throws: why no further guest can come.
    public func run() throws {
        openings.waitForEnd()
        if let error = failure.error.withLock(\.self) { throw error }
        guests.join()
    }
}

import Attachments
public import LinuxSystem
public import Logging

/// Takes the guests that hand their memory over at a Unix socket, and has each of them served.
public final class GuestListener: Sendable {
    private let listener: Listener
    private let settings: HandlerSettings
    private let logger: Logger
    private let guests = ThreadGroup()

    /// Listens for guests.
    ///
    /// - Parameter path: the socket to make, mode 0600.
    public init(at path: String, settings: HandlerSettings, logger: Logger) throws {
        listener = try Listener(at: .unix(path: path))
        self.settings = settings
        self.logger = logger
    }

    /// Where it listens.
    public var address: SocketAddress { listener.address }

    /// Takes no more guests.
    public func close() {
        listener.shutdown()
        listener.file?.remove()
    }

    /// Takes guests until it is closed, and returns when those that have come are served no longer.
    public func run() throws {
        // Each on a thread of its own: one that connects and says nothing holds up nobody.
        try listener.takeAll(onShortage: { logger.error("a guest waits to attach: \($0)") }) {
            (handover) throws(SystemError) in
            try guests.run("guest") { [self] in
                if let socket = handover.take() { serve(socket) }
            }
        }
        guests.join()
    }

    private func serve(_ socket: consuming StreamSocket) {
        let peer = socket.peer
        do {
            var session = GuestSession(try FirecrackerGuest(from: socket), at: address, settings, logger: logger)
            session.run()
        } catch {
            logger.warning("refused \(peer) at \(listener.address): \(error)")
        }
    }
}

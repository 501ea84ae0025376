import Attachments
package import LinuxSystem
package import Logging
import Synchronization

/// Accepts the guests that hand over their memory at Unix sockets, and serves each with a worker process.
///
/// The guests of an earlier listener that has died are adopted out of the folder in which it kept their state.
package final class GuestListener: Sendable {
    private typealias Message = StreamSocket.DescriptorMessage

    private let openings: [Openings<First>]
    private let guests: ThreadGroup
    private let failure: Failure
    /// The log level of the workers, those that run and those that follow.
    package let logLevel: SharedLogLevel
    private let roster: GuestRoster
    private let workers: ForkServer

    /// The first part of a hand-off.
    private struct First: Sendable {
        let message: Handover<Message>
        /// Why the hand-off is refused whatever follows; nil if it may be served.
        let refusal: PendingHandOffs.TooMany?
    }

    /// The first error that ended accepting at one of the sockets.
    private final class Failure: Sendable {
        let error = Mutex<SystemError?>(nil)
        /// Raised when accepting has ended, by an error or because the listener was closed.
        let end: EventDescriptor

        init() throws(SystemError) { end = try EventDescriptor() }
    }

    /// The addresses of the sockets.
    package var addresses: [SocketAddress] { openings.map(\.address) }

    /// Adopts the guests of an earlier listener, and starts to accept guests.
    ///
    /// - Parameters:
    ///   - listeners: the sockets at which guests attach; one at least.
    ///   - state: the path of the folder that keeps what must outlive this process; it may not exist yet.
    ///   - service: what the service manager keeps beside the folder.
    ///   - onRefused: what happens to a process whose hand-off is refused.
    ///   - roster: the guests that are served already, and the limits.
    ///   - settings: how guests are served.
    ///   - logger: receives what happens to the guests.
    ///   - report: receives the report of each guest at its end; nil if nobody wants the reports.
    /// - Throws: `SystemError` if no thread can be started.
    package init(
        at listeners: [Handover<Listener>],
        keeping state: String,
        _ service: ServiceStore,
        onRefused: RefusedPolicy = .kill,
        roster: GuestRoster = GuestRoster(),
        settings: HandlerSettings,
        logger: Logger,
        reporting report: GuestReporter? = nil
    ) throws {
        let store = try GuestStore(at: state, service)
        let file = try SharedLogLevel.makeFile()
        logLevel = try SharedLogLevel(file)
        logLevel.level = logger.logLevel
        let workers = try ForkServer(["fork-server"], sharing: file)
        (self.roster, self.workers) = (roster, workers)
        let keeper = MemoryKeeper()
        let adoption = Adoption(
            store: store,
            workers: workers,
            roster: roster,
            keeper: keeper,
            settings: settings,
            logger: logger,
            report: report
        )
        let orphans = try store.guests()
        // A process may hand its next guest over before its earlier one is adopted.
        roster.expect(orphans.map(\.process))
        let (guests, failure) = (ThreadGroup(), try Failure())
        (self.guests, self.failure) = (guests, failure)
        let (isOutsideTold, pending) = (Told(), PendingHandOffs())
        openings = try listeners.compactMap { handover in
            guard let listener = handover.take() else { return nil }
            let address = listener.address
            let refusal = Refusal(address: address, policy: onRefused, roster: roster, keeper: keeper, logger: logger)
            return try Openings(
                listener,
                name: "attach",
                Openings<First>.Handling(
                    read: { socket, _ in
                        let message = try socket.receiveDescriptors(maxBytes: FirecrackerHandOff.maxBytes)
                        do throws(PendingHandOffs.TooMany) {
                            try pending.begin(socket.origin)
                            return First(message: Handover(message), refusal: nil)
                        } catch {
                            return First(message: Handover(message), refusal: error)
                        }
                    },
                    open: { (socket, first) throws(SystemError) in
                        // Each guest's session has a thread until the guest is no longer served.
                        try guests.run("guest") {
                            guard let socket = socket.take(), let message = first.message.take() else { return }
                            let origin = socket.origin
                            let received = refusal.guest(from: socket, message, refusedBecause: first.refusal)
                            if first.refusal == nil { pending.end(origin) }
                            guard let taken = received else { return }
                            let (number, claim) = (taken.number, taken.claim)
                            defer { roster.remove(number) }
                            let guest = taken.takeGuest()
                            var settings = settings
                            if !guest.process.canBeSignalled {
                                // Such a guest waits at its missing pages instead of being killed.
                                settings.onLost = .hold
                                isOutsideTold.once { logger.warning("\(GuestListener.outside(address))") }
                            }
                            var session = GuestSession.of(
                                guest,
                                at: address,
                                settings,
                                in: store,
                                workers,
                                claiming: claim,
                                logger: logger,
                                reporting: report,
                                showing: { roster.show(number, $0) }
                            )
                            session.run()
                        }
                    },
                    // A connection that has sent nothing has handed over nothing.
                    drop: { refusal.drop($0.peer, $1) },
                    shortage: { DescriptorLimit.shortage(for: "take a guest at \(address) yet") },
                    onShortage: { logger.error("guests wait at \(address): \($0)") },
                    onEnd: { error in
                        failure.error.withLock { $0 = $0 ?? error }
                        failure.end.raise()
                    }
                )
            )
        }
        for guest in orphans { try guests.run("guest") { adoption.serve(guest) } }
    }

    /// Runs a body once, however often it is asked.
    private final class Told: Sendable {
        private let isTold = Atomic<Bool>(false)

        func once(_ body: () -> Void) {
            if !isTold.exchange(true, ordering: .relaxed) { body() }
        }
    }

    private static func outside(_ address: SocketAddress) -> String {
        "a guest at \(address) is in a PID namespace that is not visible here: such guests are served, but never killed, "
            + "whatever --on-lost and --on-refused say; run attach on the host"
    }

    /// Returns once the listener has shown that a guest could attach now: its threads do not hold what a guest needs.
    package func check() {
        roster.check()
        workers.check()
    }

    /// Stops accepting guests; those that have attached are still served.
    package func close() {
        for openings in openings { openings.close() }
        failure.end.raise()
    }

    /// Blocks until the listener was closed and no guest is served any longer.
    ///
    /// - Throws: `SystemError` if a socket failed, where no further guest can attach.
    package func run() throws {
        failure.end.wait()
        if let error = failure.error.withLock(\.self) { throw error }
        for openings in openings { openings.waitForEnd() }
        guests.join()
    }
}

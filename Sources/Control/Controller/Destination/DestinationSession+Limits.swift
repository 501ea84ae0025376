import Connections
import Identity
import LinuxSystem
import PageFetcher
import PageProtocol
import Switchover

/// Time limits on a source's steps, and freeing what a failed migration has brought.
///
/// A step that waits for the operator has no limit.
extension DestinationSession {
    /// A step that a source must finish in a given time.
    enum Step: Sendable {
        /// Send REGIONS after HELLO, before another source may take its place.
        case haste
        /// Send REGIONS after HELLO.
        case regions
        /// Wait until the memory that was being prepared for an earlier link is freed.
        case preparation
        /// Send DEVICES, all device state and PING after LISTEN; the number is that of the time limit.
        case devices(Int)
    }

    /// How long a source may keep others out between its HELLO and its REGIONS.
    static let undecidedTime = Duration.seconds(1)
    /// How long a new source waits for the end of an earlier source's link.
    private static let openingTime = Duration.seconds(1)
    /// How long a source has for REGIONS if no other source connects: at least as long as it may be silent.
    var regionsTime: Duration { max(.seconds(5), settings.peerTimeout) }
    /// How long a source waits while memory is being prepared for an earlier link.
    ///
    /// Longer than a landing waits for a process that attaches.
    static let preparationTime = Duration.seconds(10)
    /// How long a source has for its device states, without the time for their bytes: at least as long as it may be
    /// silent.
    private var devicesTime: Duration { max(.seconds(10), settings.peerTimeout) }
    /// The slowest rate of device states that is accepted, in bytes per second.
    private static let deviceBytesPerSecond = 1 << 20

    /// Drops a source that has sent HELLO but no REGIONS in time, for the next source.
    func dropUndecided() {
        guard let link, link.awaitsRegions, link.isSlow else { return }
        endLink("the source sent no REGIONS, and another source has connected")
    }

    /// Makes a new source wait while the link of another source stands, if that link may be about to end.
    ///
    /// The other source may have been refused or may have left, without its link's end having been noticed. Only one
    /// new source waits, for ``openingTime``.
    ///
    /// - Parameters:
    ///   - arrival: the new source's connection.
    ///   - hello: the new source's HELLO.
    /// - Returns: whether the new source waits.
    func holdOpening(_ arrival: LaneAcceptor.Arrival, _ hello: Hello) -> Bool {
        guard listener.held == nil, hello.role == .source, let link, !isRetired else { return false }
        switch machine.state {
        case .setup, .active, .postcopyDevice: break
        case .none, .preSwitchover, .device, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup,
            .postcopyRecover, .completed, .cancelling, .cancelled, .failed:
            return false
        }
        listener.held = (arrival, hello, link.number)
        events.add(.openingOverdue(link.number), after: DestinationSession.openingTime)
        return true
    }

    /// Accepts or refuses the waiting source, once the earlier link has ended or the wait is over.
    ///
    /// - Parameter overdue: the link for whose end the source has waited long enough.
    func settleOpening(after overdue: LinkNumber? = nil) {
        guard let held = listener.held, link == nil || isRetired || overdue == held.link else { return }
        listener.held = nil
        // The other source has had its time, whichever timer fires first.
        if overdue == link?.number { link?.isSlow = true }
        // The session that accepts sources now accepts this one too.
        if listener.isHandedOver { return listener.acceptor.deliver(held.arrival) }
        guard let socket = held.arrival.socket.take() else { return }
        meet(socket, held.hello)
    }

    /// Ends the link unless a step is finished within a time.
    func limit(_ step: Step, to time: Duration) {
        guard let link else { return }
        events.add(.link(link.number, .stepOverdue(step)), after: time)
    }

    /// Limits the time for the device states and PING, in place of an earlier limit.
    ///
    /// - Parameter bytes: the size of the announced device states.
    func limitDevices(bytes: Int) {
        guard let number = link?.deviceLimits else { return }
        link?.deviceLimits = number + 1
        limit(.devices(number + 1), to: devicesTime + .seconds(bytes / DestinationSession.deviceBytesPerSecond))
    }

    func loseIfOverdue(_ step: Step, of link: Link) {
        switch step {
        case .haste: self.link?.isSlow = true
        case .regions:
            if link.awaitsRegions { endLink("the source sent no REGIONS within \(regionsTime.text)") }
        case .preparation:
            guard case .held = link.regions else { return }
            self.link?.regions = .awaited
            // The machine refuses the source with the reason.
            perform(machine.hello())
        case .devices(let number):
            if number == link.deviceLimits { endLink("the source did not send its device state in time") }
        }
    }

    /// Frees everything that a failed migration has brought.
    func discardFailed() {
        guard machine.hasGivenUp, end?.isDiscarded == false else { return }
        end?.isDiscarded = true
        discardMemory()
    }
}

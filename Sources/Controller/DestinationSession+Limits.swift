import DestinationAgent
import LinuxSystem
import Switchover

/// How long a source may take for what does not wait for the operator, and what becomes of all that it has brought.
extension DestinationSession {
    /// What a source has to do in a given time.
    enum Step: Sendable {
        /// Send REGIONS after HELLO.
        case regions
        /// Send DEVICES, all device state and PING after LISTEN.
        case devices
    }

    /// How long a source that has said HELLO may keep others out before it sends REGIONS.
    private static let undecidedTime = Duration.seconds(1)
    /// How long a source has for REGIONS where no other comes.
    static let regionsTime = Duration.seconds(5)
    /// How long a source has for its device state, but for what its bytes take.
    private static let devicesTime = Duration.seconds(10)
    /// Bytes of device state that a source sends in a second at least.
    private static let deviceBytesPerSecond = 1 << 20

    /// A source that says HELLO and no more makes room for the next.
    func dropUndecided() {
        guard let control, control.number != acceptedControl, machine.state == .setup, agent == nil,
            ContinuousClock.now - controlSince > DestinationSession.undecidedTime
        else { return }
        lose("the source sent no REGIONS, and another has come")
    }

    /// Has the link lost if a step takes longer than this.
    func limit(_ step: Step, to time: Duration) {
        Task { [events, number = lastControl] in
            await rest(for: time)
            events.yield(.link(number, .stepOverdue(step)))
        }
    }

    /// - Parameter bytes: of device state that are announced.
    func limitDevices(bytes: Int) {
        let time = DestinationSession.devicesTime + .seconds(bytes / DestinationSession.deviceBytesPerSecond)
        devicesDeadline = .now + time
        limit(.devices, to: time)
    }

    func loseIfOverdue(_ step: Step, of number: LinkNumber) {
        switch step {
        case .regions:
            guard acceptedControl != number, agent == nil else { return }
            lose("the source sent no REGIONS within \(DestinationSession.regionsTime)")
        case .devices:
            // What was announced meanwhile takes its time.
            guard let devicesDeadline, devicesDeadline <= .now else { return }
            lose("the source did not send its device state in time")
        }
    }

    /// Lets go of all that a migration which has failed had brought.
    func discardFailed() {
        guard machine.hasGivenUp, hasEnded, !hasDiscarded else { return }
        hasDiscarded = true
        progressAtEnd = agent?.progress
        (arriving, loaded) = (nil, nil)
        discardMemory()
    }
}

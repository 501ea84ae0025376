import Connections
import DestinationAgent
import Guest
import LinuxSystem
import PageProtocol
import Switchover
import Telemetry

extension DestinationSession {
    /// What clients are told of the migration now.
    struct Snapshot: Sendable {
        var state: MigrationState
        /// Whether the workload's start has ended well: from then on it can be stopped and started again here.
        var hasStarted: Bool
        /// Whether it has failed, and another may come.
        var hasFailed: Bool
        var failureReason: String?
        /// Where it listens, with the port that the kernel chose.
        var address: SocketAddress
        /// Whether it listens there still.
        var isListening: Bool
        var progress: DestinationAgent.Progress
        var totalMicroseconds: Double
    }

    func snapshot() -> Snapshot {
        let end = timeline[.end] ?? MonotonicClock.now()
        let begin = timeline[.begin] ?? end
        return Snapshot(
            state: machine.state,
            hasStarted: hasStarted,
            hasFailed: machine.hasGivenUp,
            failureReason: machine.failureReason,
            address: acceptor.address,
            isListening: isListening && !hasHandedOver,
            progress: agent?.progress ?? progressAtEnd ?? DestinationAgent.Progress(),
            totalMicroseconds: Timeline<Moment>.microseconds(from: begin, to: end)
        )
    }

    private var hasStarted: Bool {
        switch machine.state {
        case .postcopyActive, .postcopyPaused, .postcopyRecoverSetup, .postcopyRecover, .completed: true
        case .none, .setup, .active, .device, .postcopyDevice, .cancelling, .cancelled, .failed: false
        }
    }

    /// Adds what the destination knows.
    func fill(_ report: inout AgentReport) {
        let snapshot = snapshot()
        // A source that was sent away says nothing of the one that comes next.
        if machine.state != .setup { report.migration = peer?.migration.description }
        report.states = states.states.map(\.rawValue)
        report.error = snapshot.failureReason ?? (machine.state == .postcopyPaused ? lastLoss : nil)
        report.total = snapshot.totalMicroseconds
        var destination = AgentReport.Destination()
        destination.load = timeline.microseconds(from: .loadBegun, to: .loaded)
        destination.untilStarted = timeline.microseconds(from: .runReceived, to: .started)
        destination.start = microsecondsToFirstOperation
        destination.untilResident = timeline.microseconds(from: .runReceived, to: .resident)
        destination.pages.total = snapshot.progress.pagesTotal
        destination.pages.demand = snapshot.progress.demand
        destination.pages.pushed = snapshot.progress.pushed
        destination.pages.zero = snapshot.progress.zero
        destination.pages.prefetched = snapshot.progress.prefetched
        destination.pages.prefetchedUnused = snapshot.progress.prefetchedUnused
        destination.pages.duplicate = snapshot.progress.duplicate
        destination.stall = LatencySummary(workload?.stalls ?? [])
        destination.service = LatencySummary(agent?.service ?? [])
        destination.floor = floor
        report.destination = destination
    }

    /// Keeps when the workload began here: the next start, after a stop, forgets it.
    func noteFirstOperation() {
        guard firstOperation == nil, let begin = timeline[.runReceived],
            let first = workload?.activity.firstOperation ?? timeline[.started], first > begin
        else { return }
        firstOperation = first
    }

    private var microsecondsToFirstOperation: Double {
        noteFirstOperation()
        guard let begin = timeline[.runReceived], let firstOperation else { return 0 }
        return Timeline<Moment>.microseconds(from: begin, to: firstOperation)
    }
}

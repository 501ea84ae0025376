import Guest
import LinuxSystem
import PageProtocol
import SourceAgent
import Switchover
import Telemetry

extension SourceSession {
    /// What clients are told of the migration now.
    struct Snapshot: Sendable {
        var state: MigrationState
        var isWorkloadHere: Bool
        var isHeld: Bool
        var failureReason: String?
        var destination: SocketAddress
        var progress: SourceAgent.Progress
        var totalMicroseconds: Double
        /// From the last operation here until the destination said that it runs; nil before.
        var downtimeMicroseconds: Double?
    }

    func snapshot() -> Snapshot {
        let end = timeline[.end] ?? MonotonicClock.now()
        let begin = timeline[.begin] ?? end
        return Snapshot(
            state: machine.state,
            isWorkloadHere: machine.isWorkloadHere,
            isHeld: machine.isHeld,
            failureReason: machine.failureReason,
            destination: destination,
            progress: agent.progress,
            totalMicroseconds: Timeline<Moment>.microseconds(from: begin, to: end),
            downtimeMicroseconds: timeline[.running] == nil
                ? nil : timeline.microseconds(from: .lastOperation, to: .running)
        )
    }

    /// Adds what the source knows.
    func fill(_ report: inout AgentReport) {
        let snapshot = snapshot()
        report.migration = migration.description
        report.states = states.states.map(\.rawValue)
        report.error = snapshot.failureReason
        report.total = snapshot.totalMicroseconds
        var source = AgentReport.Source()
        source.stop = timeline.microseconds(from: .stopAsked, to: .stopped)
        source.save = timeline.microseconds(from: .stopped, to: .saved)
        source.untilLoaded = timeline.microseconds(from: .saved, to: .loaded)
        source.untilRunning = timeline.microseconds(from: .loaded, to: .running)
        source.lastOperationToRun = timeline.microseconds(from: .lastOperation, to: .runSent)
        source.operationsAfterTakeBack = wasTakenBack ? workload.activity.operationsSinceStart : 0
        source.requests = snapshot.progress.requests
        source.bytesSent = snapshot.progress.bytesSent
        report.source = source
    }
}

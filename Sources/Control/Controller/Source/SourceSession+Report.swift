import Compression
import Guest
import Identity
import LinuxSystem
import PageProtocol
import PageServer
import Switchover
import Telemetry

extension SourceSession {
    /// The migration's present state, for clients.
    struct Status: Sendable {
        var state: MigrationState
        var isWorkloadHere: Bool
        var isHeld: Bool
        var failureReason: String?
        var destination: SocketAddress
        /// The size of a page in bytes; the largest one if regions differ.
        var pageSize: Int
        var progress: PageServer.Progress
        var totalMicroseconds: Double
        /// Microseconds from `migrate` until both sides were ready; nil before that.
        var setupMicroseconds: Double?
        /// Microseconds since pages could first be sent; 0 before that.
        var sendingMicroseconds: Double
        /// Microseconds from the last operation here until the destination reported the start.
        ///
        /// Nil before that, and for a workload that was paused.
        var downtimeMicroseconds: Double?
    }

    /// Whether the migration has not ended.
    var isUnderWay: Bool { !machine.state.isEnd }

    func snapshot() -> Status {
        let end = timeline[.end] ?? MonotonicClock.now()
        let begin = timeline[.begin] ?? end
        return Status(
            state: machine.state,
            isWorkloadHere: machine.isWorkloadHere,
            isHeld: machine.isHeld,
            failureReason: machine.failureReason,
            destination: destination,
            pageSize: workload.description.regions.map(\.pageSize).max() ?? 0,
            progress: pageServer.progress,
            totalMicroseconds: Timeline<Moment>.microseconds(from: begin, to: end),
            setupMicroseconds: timeline[.ready] == nil ? nil : timeline.microseconds(from: .begin, to: .ready),
            sendingMicroseconds: timeline[.saved].map { Timeline<Moment>.microseconds(from: $0, to: end) } ?? 0,
            downtimeMicroseconds: timeline[.running] == nil || settings.isPaused
                ? nil : timeline.microseconds(from: .lastOperation, to: .running)
        )
    }

    /// Adds the source's part to a report.
    func fill(_ report: inout AgentReport) {
        let snapshot = snapshot()
        report.migration = migration.description
        report.states = states.states
        report.path = states.path.times(since: timeline[.begin])
        report.error = snapshot.failureReason
        report.total = snapshot.totalMicroseconds
        var source = AgentReport.Source()
        source.stop = timeline.microseconds(from: .stopAsked, to: .stopped)
        source.save = timeline.microseconds(from: .stopped, to: .saved)
        source.untilLoaded = timeline.microseconds(from: .saved, to: .loaded)
        source.untilRunning = timeline.microseconds(from: .loaded, to: .running)
        source.runToRunning = timeline.microseconds(from: .runSent, to: .running)
        source.lastOperationToRun = timeline.microseconds(from: .lastOperation, to: .runSent)
        source.operationsAfterTakeBack = timeline[.takenBack] != nil ? workload.activity.operationsSinceStart : 0
        source.requests = snapshot.progress.requests
        source.bytesSent = snapshot.progress.bytesSent
        source.pushLanes = settings.pushes ? pushLanes : nil
        let compressed = snapshot.progress.compressed
        source.compression = Report.Compression(
            setting: settings.compression.rawValue,
            codec: compressed.codec?.rawValue ?? "none",
            bytesBefore: compressed.bytesBefore,
            bytesAfter: compressed.bytesAfter,
            processorTime: Double(compressed.processorNanoseconds) / 1000,
            runs: compressed.runsShrunk,
            runsUnshrunk: compressed.runsUnshrunk,
            runsSkipped: compressed.runsSkipped
        )
        source.address = snapshot.destination.description
        source.destination = (peer?.instance ?? settings.wanted)?.description
        source.hasMetOther = machine.hasMetOther
        source.hasMet = peer != nil || machine.wasRefused
        source.resumesOnWord = machine.resumesOnWord
        if machine.awaitsLease {
            source.search = .lease
        } else if machine.state == .postcopyPaused, redialing.attempt != nil {
            source.search = .destination
        }
        report.source = source
    }
}

import Exposition
import LinuxSystem
import PageServer
import Snapshots
import Synchronization
import Telemetry

/// A snapshot server as the live page and the metrics show it.
final class ObservedServer: Observed {
    private let server: SnapshotServer
    private let file: SnapshotFile
    private let rates = Mutex(RateMeter<Bool>())

    init(_ server: SnapshotServer, _ file: SnapshotFile) {
        self.server = server
        self.file = file
    }

    var kind: LiveState.Kind { .server }

    private func rate(of figures: SnapshotServer.Figures) -> Double {
        rates.withLock { $0.rate(of: true, count: UInt64(max(0, figures.sent.bytes)), at: MonotonicClock.now()) }
    }

    func liveState() async -> LiveState {
        let figures = server.figures
        var state = LiveState(.server)
        state.server = LiveState.Server(
            snapshotBytes: UInt64(file.byteCount),
            path: file.path,
            connections: figures.connections,
            connectionLimit: server.connectionLimit,
            sessions: figures.sessions,
            sentBytes: UInt64(max(0, figures.sent.bytes)),
            rate: UInt64(rate(of: figures))
        )
        return state
    }

    func metrics() async -> MetricSet {
        let figures = server.figures
        var set = MetricSet()
        set.add(.serverConnections, Double(figures.connections))
        set.add(.serverConnectionLimit, Double(server.connectionLimit))
        set.add(.serverSessions, Double(figures.sessions))
        set.add(.serverRequests, Double(figures.sent.requests))
        set.add(.serverRefusals, Double(figures.refusals))
        set.add(.serverPages, Double(figures.sent.pages - figures.sent.zeroPages), "bytes")
        set.add(.serverPages, Double(figures.sent.zeroPages), "zero")
        set.add(.serverBytes, Double(figures.sent.bytes))
        set.add(.serverRate, rate(of: figures))
        set.add(.snapshotBytes, Double(file.byteCount))
        set.add(.snapshotProved, file.isProved ? 1 : 0)
        return set
    }

    /// Nil: a server is made only once it listens.
    func unreadiness() async -> String? { nil }

    func act(_ action: LiveAction) async throws(ActionRefused) {
        throw ActionRefused(reason: "a snapshot server has no actions", isUnknown: true)
    }
}

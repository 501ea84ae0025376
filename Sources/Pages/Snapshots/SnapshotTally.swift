package import PageServer
import Synchronization

extension SnapshotServer {
    /// What a server has done so far, and what it holds now.
    package struct Figures: Hashable, Sendable {
        /// Destinations that are being served.
        package var sessions = 0
        /// Connections that they use.
        package var connections = 0
        /// Connections that were refused.
        package var refusals = 0
        /// The amounts sent to all destinations.
        package var sent = SnapshotPageServer.Progress()

        /// Makes figures of zero.
        package init() {}
    }
}

/// The figures of a snapshot server, which any thread may read while the server works.
final class SnapshotTally: Sendable {
    private struct State {
        /// The figures, without what the page servers of present sessions have sent.
        var figures = SnapshotServer.Figures()
        var pageServers: [Int: SnapshotPageServer] = [:]
    }

    private let state = Mutex(State())

    /// Records the numbers of sessions and their connections.
    func note(sessions: Int, connections: Int) {
        state.withLock { state in
            state.figures.sessions = sessions
            state.figures.connections = connections
        }
    }

    /// Counts a connection that is refused.
    func noteRefusal() { state.withLock { $0.figures.refusals += 1 } }

    /// Adds the page server of a session, by the session's number.
    func add(_ pageServer: SnapshotPageServer, as number: Int) {
        state.withLock { $0.pageServers[number] = pageServer }
    }

    /// Keeps what a session has sent, after its end.
    func remove(_ number: Int) {
        state.withLock { state in
            guard let pageServer = state.pageServers.removeValue(forKey: number) else { return }
            state.figures.sent.add(pageServer.progress)
        }
    }

    /// The figures now.
    var figures: SnapshotServer.Figures {
        state.withLock { state in
            state.pageServers.values.reduce(into: state.figures) { $0.sent.add($1.progress) }
        }
    }
}

extension SnapshotPageServer.Progress {
    fileprivate mutating func add(_ other: SnapshotPageServer.Progress) {
        requests += other.requests
        pages += other.pages
        zeroPages += other.zeroPages
        bytes += other.bytes
    }
}

import Connections
import LinuxSystem
import PageProtocol
import Synchronization

/// The migrations by which workloads have come to this agent, or were refused here, and whose sources may still come for
/// an answer: for each, the session that has it.
///
/// Wherever the agent listens, such a source finds that session, whatever the agent does meanwhile.
final class FormerMigrations: Sendable {
    typealias Events = AsyncStream<DestinationSession.Event>.Continuation

    private let sessions = Mutex<[MigrationID: Events]>([:])

    /// Keeps the session of a migration that is over here.
    func add(_ migration: MigrationID, _ session: Events) {
        sessions.withLock { $0[migration] = session }
    }

    /// Forgets a migration whose source needs no answer any more.
    func remove(_ migration: MigrationID) {
        sessions.withLock { $0[migration] = nil }
    }

    /// Gives a connection to the session that its first frame names, or to the one that listens.
    func route(_ arrival: LaneAcceptor.Arrival, otherwise session: Events) {
        let migration =
            switch arrival.opening {
            case .hello(let hello): hello.migration
            case .join(let join): join.migration
            }
        let former = sessions.withLock { $0[migration] }
        (former ?? session).yield(.arrived(arrival))
    }
}

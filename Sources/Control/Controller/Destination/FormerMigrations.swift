import Connections
import Identity
import LinuxSystem
import PageProtocol
import Synchronization

/// Incoming migrations that are over here but whose sources may reconnect for an answer, with the session of each.
///
/// Such a migration has brought a workload, or was refused. Its source reaches that session at any address where the
/// agent listens.
final class FormerMigrations: Sendable {
    typealias Events = EventQueue<DestinationSession.Event>

    private let sessions = Mutex<[MigrationID: Events]>([:])

    /// Adds the session of a migration that is over here.
    func add(_ migration: MigrationID, _ session: Events) {
        sessions.withLock { $0[migration] = session }
    }

    /// Removes a migration whose source needs no answer any more.
    func remove(_ migration: MigrationID) {
        sessions.withLock { $0[migration] = nil }
    }

    /// Delivers a connection to the former session that its first frame names, or else to the session that listens.
    func route(_ arrival: LaneAcceptor.Arrival, otherwise session: Events) {
        let migration =
            switch arrival.opening {
            case .hello(let hello): hello.migration
            case .join(let join): join.migration
            }
        let former = sessions.withLock { $0[migration] }
        (former ?? session).add(.arrived(arrival))
    }
}

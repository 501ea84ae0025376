import Identity
import QMP
import Switchover

/// The events that an agent sends, as `query-events` and `query-qmp-schema` describe them.
///
/// The agent sends no other event.
enum AgentEvent: String, CaseIterable {
    /// A migration has entered a state.
    case migration = "MIGRATION"
    /// A pass over the memory begins.
    case migrationPass = "MIGRATION_PASS"
    /// The workload was resumed, or has started at this destination.
    case resume = "RESUME"
    /// The workload has ended by itself, or the agent is exiting.
    case shutdown = "SHUTDOWN"
    /// The workload has been stopped.
    case stop = "STOP"

    /// The members of an event's data.
    private var data: [QMPMember] {
        switch self {
        case .migration: [.required("status", .words(MigrationState.allCases.map(\.rawValue)))]
        case .migrationPass: [.required("pass", .integer)]
        case .resume, .stop: []
        case .shutdown:
            [.required("guest", .boolean), .required("reason", .words(["guest-shutdown", "host-qmp-quit"]))]
        }
    }

    /// Whether the event is sent only with the capability `events`, for clients that follow a migration.
    var isOfProgress: Bool {
        switch self {
        case .migration, .migrationPass: true
        case .resume, .shutdown, .stop: false
        }
    }

    /// The descriptions of all events for clients.
    static let descriptions = allCases.map { QMPEventDescription($0.rawValue, data: $0.data) }
}

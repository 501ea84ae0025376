import Identity
import QMP
import Switchover
import Synchronization

/// Passes an agent's events to a receiver; drops them until a receiver is set.
final class EventSink: Sendable {
    private struct State {
        var sink: (@Sendable (String, [String: JSONValue]) -> Void)?
        var tellsStates = true
    }

    private let state = Mutex(State())

    func set(_ sink: @escaping @Sendable (String, [String: JSONValue]) -> Void) {
        state.withLock { $0.sink = sink }
    }

    /// Sets whether events about a migration's progress are sent: the capability `events`.
    func tellsStates(_ tells: Bool) {
        state.withLock { $0.tellsStates = tells }
    }

    func send(_ event: AgentEvent, _ data: [String: JSONValue] = [:]) {
        // The receiver is called under the lock, so that events keep their order.
        state.withLock { if $0.tellsStates || !event.isOfProgress { $0.sink?(event.rawValue, data) } }
    }

    /// Sends SHUTDOWN: the workload has ended by itself.
    func sendWorkloadEnd() {
        send(.shutdown, ["guest": true, "reason": "guest-shutdown"])
    }

    /// Sends MIGRATION with a migration's new state.
    func send(_ migrationState: MigrationState) {
        send(.migration, ["status": .string(migrationState.rawValue)])
    }

    /// Sends MIGRATION_PASS: a pass over the memory begins.
    func sendPass(_ number: Int) {
        send(.migrationPass, ["pass": JSONValue(number)])
    }
}

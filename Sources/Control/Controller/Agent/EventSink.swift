import Identity
import QMP
import Switchover
import Synchronization

/// Passes an agent's events to a receiver; drops them until a receiver is set.
final class EventSink: Sendable {
    private struct State {
        var sink: (@Sendable (QMPEvent) -> Void)?
        var tellsStates = true
        /// The events that are held back; nil while events are passed on at once.
        var held: [QMPEvent]?
    }

    private let state = Mutex(State())
    /// The counts of what has happened, which metrics show.
    let tally = AgentTally()

    func set(_ sink: @escaping @Sendable (QMPEvent) -> Void) {
        state.withLock { $0.sink = sink }
    }

    /// Sets whether events about a migration's progress are sent: the capability `events`.
    func tellsStates(_ tells: Bool) {
        state.withLock { $0.tellsStates = tells }
    }

    func send(_ event: AgentEvent, _ data: [String: JSONValue] = [:]) {
        // The receiver is called under the lock, so that events keep their order.
        state.withLock { state in
            guard state.tellsStates || !event.isOfProgress else { return }
            let event = QMPEvent(name: event.rawValue, data: data, timestamp: .now)
            if state.held?.append(event) == nil { state.sink?(event) }
        }
    }

    /// Holds events back until ``release()``.
    func hold() {
        state.withLock { $0.held = $0.held ?? [] }
    }

    /// Passes on the events that were held back, in their order.
    func release() {
        state.withLock { state in
            for event in state.held ?? [] { state.sink?(event) }
            state.held = nil
        }
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

import QMP
import Switchover
import Synchronization

/// Where an agent's events go: nowhere, until somebody listens.
final class EventSink: Sendable {
    private let sink = Mutex<(@Sendable (String, [String: JSONValue]) -> Void)?>(nil)

    func set(_ sink: @escaping @Sendable (String, [String: JSONValue]) -> Void) {
        self.sink.withLock { $0 = sink }
    }

    func send(_ name: String, _ data: [String: JSONValue] = [:]) {
        // Called under the lock, so that events keep their order.
        sink.withLock { $0?(name, data) }
    }

    /// `SHUTDOWN`: the workload has ended by itself.
    func sendWorkloadEnd() {
        send("SHUTDOWN", ["guest": true, "reason": "guest-shutdown"])
    }

    /// `MIGRATION`: a migration has come to this state.
    func send(_ state: MigrationState) {
        send("MIGRATION", ["status": .string(state.rawValue)])
    }
}

import Identity
import Switchover
import Synchronization
import Telemetry

/// What has happened in all migrations of an agent, counted for its metrics.
final class AgentTally: Sendable {
    /// The end of a migration on one side.
    struct End: Hashable, Sendable {
        let role: LiveState.Migration.Role
        let result: MigrationState
    }

    private struct State {
        var ends: [End: Int] = [:]
        var retries = 0
        var reconnects = 0
        var pauses = 0
        var recoveries = 0
    }

    /// The counts at one moment.
    struct Counts: Sendable {
        let ends: [End: Int]
        let retries: Int
        let reconnects: Int
        let pauses: Int
        let recoveries: Int
    }

    private let state = Mutex(State())

    /// Counts a new state of a migration.
    func note(_ new: MigrationState, after old: MigrationState?, as role: LiveState.Migration.Role) {
        state.withLock { state in
            switch new {
            case .completed, .failed, .cancelled: state.ends[End(role: role, result: new), default: 0] += 1
            case .postcopyPaused: state.pauses += 1
            case .postcopyActive where old == .postcopyRecover || old == .postcopyPaused: state.recoveries += 1
            case .none, .setup, .active, .preSwitchover, .device, .postcopyDevice, .postcopyActive,
                .postcopyRecoverSetup, .postcopyRecover, .cancelling:
                break
            }
        }
    }

    /// Counts an attempt to reach a lost destination.
    func noteRetry() { state.withLock { $0.retries += 1 } }

    /// Counts a link that was made again.
    func noteReconnect() { state.withLock { $0.reconnects += 1 } }

    var counts: Counts {
        state.withLock {
            Counts(
                ends: $0.ends,
                retries: $0.retries,
                reconnects: $0.reconnects,
                pauses: $0.pauses,
                recoveries: $0.recoveries
            )
        }
    }
}

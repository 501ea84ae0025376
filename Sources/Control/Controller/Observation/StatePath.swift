import Identity
import LinuxSystem
import Telemetry

/// The states that one side of a migration has passed, each with its time.
struct StatePath: Sendable {
    /// The states, the oldest first, with the nanoseconds of `MonotonicClock` at which each was entered or learned.
    private(set) var passed: [(state: MigrationState, time: UInt64)] = []

    /// Makes a path that begins before any migration.
    init() { note(.none) }

    /// Adds a state, unless it is the last one.
    mutating func note(_ state: MigrationState) {
        // A migration that pauses again and again for days must not fill the memory.
        guard state != passed.last?.state, passed.count < 1000 else { return }
        passed.append((state, MonotonicClock.now()))
    }

    /// The states with their times, as a report has them.
    ///
    /// - Parameter begin: when the migration began; nil if it has not.
    func times(since begin: UInt64?) -> [Report.Passed] {
        passed.map { state, time in
            Report.Passed(state: state, at: begin.map { time > $0 ? Double(time - $0) / 1000 : 0 } ?? 0)
        }
    }

    /// The path as the live page shows it.
    ///
    /// - Parameters:
    ///   - name: the side.
    ///   - own: whether this agent is that side.
    ///   - begin: when the migration began; nil if it has not.
    func side(_ name: LiveState.Migration.Role, own: Bool, since begin: UInt64?) -> LiveState.Migration.Side {
        LiveState.Migration.Side(
            side: name.rawValue,
            own: own,
            states: passed.map { state, time in
                LiveState.Migration.Passed(
                    state: state,
                    at: begin.map { time > $0 ? Double(time - $0) / 1000 : 0 } ?? 0
                )
            }
        )
    }
}

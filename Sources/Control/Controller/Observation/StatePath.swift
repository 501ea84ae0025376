import Identity
import LinuxSystem
import Telemetry

/// The states that one side of a migration has passed, each with its time.
struct StatePath: Sendable {
    /// The states, the oldest first, with the nanoseconds of `MonotonicClock` at which each was entered or learned.
    private(set) var passed: [(state: MigrationState, time: UInt64)] = []

    /// The most states that are kept.
    private static let most = 1000

    /// Makes a path that begins before any migration.
    init() { note(.none) }

    /// Adds a state, unless it is the last one.
    mutating func note(_ state: MigrationState) {
        guard state != passed.last?.state else { return }
        // A migration that pauses again and again for days must not fill the memory. The first states stay, which say
        // when the workload started, and the last ones, which say how the migration stands.
        if passed.count == StatePath.most { passed.remove(at: StatePath.most / 2) }
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
        LiveState.Migration.Side(side: name.rawValue, own: own, states: times(since: begin))
    }
}

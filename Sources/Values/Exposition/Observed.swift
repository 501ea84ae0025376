package import Telemetry

/// A process whose state and metrics can be looked at while it works.
///
/// Many clients may look at once. No call may wait for a peer, and none may hold up the threads that move pages.
package protocol Observed: Sendable {
    /// What the process does.
    var kind: LiveState.Kind { get }

    /// The state for the live page, without what every process has: release, name, time, log.
    func liveState() async -> LiveState

    /// The metrics of what the process does.
    func metrics() async -> MetricSet

    /// Why the process takes no work now; nil if it takes work.
    func unreadiness() async -> String?

    /// Carries out an action of an operator, and returns when its result is known.
    func act(_ action: LiveAction) async throws(ActionRefused)
}

/// An action that the live page offers.
package enum LiveAction: Hashable, Sendable {
    /// Takes the workload of a migration back.
    case cancel
    /// Makes a new link for a paused migration, over this address.
    case recover(uri: String)
    /// Resumes the workload, or starts an arrived one.
    case cont
    /// Pauses the migration.
    case pause
    /// Fetches the rest of a guest's memory, at most this fast; 0 for no limit.
    case fill(LiveGuest.ID, bytesPerSecond: UInt64)
    /// Lets a guest be filled without a limit, so that it needs its server no more.
    case release(LiveGuest.ID)
}

/// Why an action was not carried out.
package struct ActionRefused: Error, Hashable, CustomStringConvertible {
    /// The reason, in one line.
    package let reason: String
    /// Whether the process has no such action at all.
    package let isUnknown: Bool
    package var description: String { reason }

    /// Makes a refusal.
    ///
    /// - Parameters:
    ///   - reason: the reason, in one line.
    ///   - isUnknown: whether the process has no such action at all.
    package init(reason: String, isUnknown: Bool = false) {
        (self.reason, self.isUnknown) = (reason, isUnknown)
    }
}

/// Why a migration failed or is paused; the description is one line for people.
package enum SwitchoverFailure: Hashable, Sendable, CustomStringConvertible {
    /// The destination refuses this migration.
    case refused(reason: String)
    /// The agent that answers is not the destination that the operator named.
    case otherDestination(reason: String)
    /// The workload could not be stopped.
    case stopFailed(reason: String)
    /// A device's state could not be saved on the source.
    case saveFailed(device: String, reason: String)
    /// A device's state could not be loaded on the destination.
    case loadFailed(device: String, reason: String)
    /// The source could not release its disk locks.
    case releaseFailed(reason: String)
    /// The destination did not start the workload, and promised that this RUN never starts it.
    case startRefused(reason: String)
    /// The control link broke.
    case linkLost(reason: String)
    /// The control link was ended for a reason of its own, by either side, or could not be made.
    case linkEnded(reason: String)
    /// Pages that the destination lacks can no longer be read at the source.
    case memoryLost(reason: String)
    /// The peer sent what the protocol does not allow at this point.
    case violation(String)
    /// A `cancel` took the workload back.
    case cancelled
    /// Another process answers at the destination's address than the one that loaded the devices.
    case otherInstance
    /// The source is gone for good by the operator's word, and pages are missing.
    case sourceGone
    /// The run lease names the destination, started.
    case leaseNamesDestination
    /// The run lease could not be read or written.
    case leaseUnreachable(reason: String)

    /// The reason of a link that `migrate-pause` has ended.
    package static let pausedByOperator = "the operator has paused the migration"

    /// Whether the destination has promised that a RUN never starts.
    var isRefusedStart: Bool {
        if case .startRefused = self { true } else { false }
    }

    /// The failure in one line: what failed, on what and why.
    package var description: String {
        switch self {
        case .refused(let reason): "the destination refuses the migration: \(reason)"
        case .otherDestination(let reason): reason
        case .stopFailed(let reason): "cannot stop the workload: \(reason)"
        case .saveFailed(let device, let reason): "cannot save device \(device): \(reason)"
        case .loadFailed(let device, let reason): "the destination cannot load device \(device): \(reason)"
        case .releaseFailed(let reason): "cannot release what the workload holds: \(reason)"
        case .startRefused(let reason): "the destination cannot start the workload: \(reason)"
        case .linkLost(let reason): "the control link broke: \(reason)"
        case .linkEnded(let reason): reason
        case .memoryLost(let reason): "memory of the workload is lost at the source: \(reason)"
        case .violation(let what): "the peer breaks the protocol: \(what)"
        case .cancelled: "the migration was cancelled"
        case .otherInstance:
            "another process answers at the destination's address; the one that loaded the devices is gone"
        case .sourceGone:
            "the source is gone for good, by the operator's word, and pages are missing: nobody runs the workload"
        case .leaseNamesDestination: "the link broke, and the run lease says that the destination has started"
        case .leaseUnreachable(let reason): "the run lease cannot be read or written: \(reason)"
        }
    }
}

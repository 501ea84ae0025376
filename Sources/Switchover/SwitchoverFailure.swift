/// Why a migration ended or stands still.
///
/// Its description is one line for people.
public enum SwitchoverFailure: Hashable, Sendable, CustomStringConvertible {
    /// The destination does not take this migration.
    case refused(reason: String)
    /// The workload could not be stopped.
    case stopFailed(reason: String)
    /// A device's state could not be saved on the source.
    case saveFailed(device: String, reason: String)
    /// A device's state could not be loaded on the destination.
    case loadFailed(device: String, reason: String)
    /// The source could not let go of its disk locks.
    case releaseFailed(reason: String)
    /// The destination did not start the workload, and promised that this RUN never will.
    case startRefused(reason: String)
    /// The control link broke or could not be made.
    case linkLost(reason: String)
    /// The peer sent what the protocol does not allow at this point.
    case violation(String)
    /// A `cancel` took the workload back.
    case cancelled
    /// Another process answers where the one that loaded the devices was.
    case otherInstance
    /// The run lease names the destination as the one that has started.
    case leaseNamesDestination
    /// The run lease could not be asked who runs.
    case leaseUnreachable(reason: String)

    /// Whether the destination has promised that a RUN never starts.
    var isRefusedStart: Bool {
        if case .startRefused = self { true } else { false }
    }

    /// What failed, on what and why.
    public var description: String {
        switch self {
        case .refused(let reason): "the destination refuses the migration: \(reason)"
        case .stopFailed(let reason): "cannot stop the workload: \(reason)"
        case .saveFailed(let device, let reason): "cannot save device \(device): \(reason)"
        case .loadFailed(let device, let reason): "the destination cannot load device \(device): \(reason)"
        case .releaseFailed(let reason): "cannot release the disk locks: \(reason)"
        case .startRefused(let reason): "the destination cannot start the workload: \(reason)"
        case .linkLost(let reason): "the control link broke: \(reason)"
        case .violation(let what): "the peer breaks the protocol: \(what)"
        case .cancelled: "the migration was cancelled"
        case .otherInstance: "another process answers there, the one that loaded the devices is gone"
        case .leaseNamesDestination: "the link broke, and the run lease says that the destination has started"
        case .leaseUnreachable(let reason): "the run lease cannot be asked: \(reason)"
        }
    }
}

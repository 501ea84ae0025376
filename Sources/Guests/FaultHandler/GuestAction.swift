import PageProtocol

/// An action that ``GuestFate`` asks of its driver.
enum GuestAction: Hashable, Sendable {
    /// Connect to the server, and reconnect after each loss for as long as pages are missing.
    case connect
    /// Attach the new link's lanes, and fetch the working set over them.
    ///
    /// The snapshot is recorded first, so that no later worker takes pages of another one. `after` has the nanoseconds
    /// since this worker has lost the link before; nil for the first link.
    case attach(SnapshotIdentity, after: UInt64?)
    /// Record the new identity of the snapshot that the guest's pages come from.
    case remember(SnapshotIdentity)
    /// Close the link; the driver reports its loss as ``GuestFate/linkLost(_:at:)``.
    case hangUp
    /// Detach the lost link's lanes, so that the server may be redialed.
    case detach
    /// Record and report that the guest is held: its faults wait until ``continue``.
    case hold(GuestLoss)
    /// Record and report that the faults of a held guest are answered again.
    case `continue`
    /// Kill the guest's process; a failure is reported to ``GuestFate/killFailed()``.
    case kill(GuestLoss)
    /// Give the complete memory back to the guest, which then runs without a handler.
    case giveBack
    /// Report a trouble that the guest may see as slow faults.
    case report(GuestTrouble)
}

/// The reason why a guest is lost.
enum GuestLoss: Hashable, Sendable {
    /// The server refuses the guest.
    case refused(String)
    /// The server has another snapshot than the one that the guest's pages come from.
    case otherSnapshot
    /// The guest had no link to a server for too long; the failure is nil if no attempt has failed.
    case unlinked(LinkFailure?)
    /// A server is connected, and has not answered a fault for too long.
    case unanswered
    /// A server is connected, and this host has had no memory for the page for too long.
    case noMemory
    /// No worker could serve the guest for too long.
    case unserved
}

/// A trouble of a guest that is not lost.
enum GuestTrouble: Hashable, Sendable {
    /// The link to the server is lost.
    case linkLost(String)
    /// This worker has no link to the server yet, or the server turns away a guest that has lost its link.
    case unlinked(LinkFailure)
}

/// Why there is no link to the server.
enum LinkFailure: Hashable, Sendable {
    /// The server could not be reached, or the link to it broke.
    case unreachable(String)
    /// The server is there, and takes no session now.
    case turnedAway(String)

    /// The reason in words.
    var reason: String {
        switch self {
        case .unreachable(let reason), .turnedAway(let reason): reason
        }
    }

    /// Whether the server is there.
    var isTurnedAway: Bool {
        switch self {
        case .unreachable: false
        case .turnedAway: true
        }
    }
}

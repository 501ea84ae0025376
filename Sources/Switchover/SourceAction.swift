/// A message of the source on the control link.
public enum SourceMessage: Hashable, Sendable {
    /// HELLO and REGIONS: who asks, and what memory the workload has.
    case hello
    /// LISTEN: serve faults from now on.
    case listen
    /// DEVICES: the saved state of all devices.
    case devices
    /// PING: answer with the same number once all devices have loaded.
    case ping(UInt64)
    /// RUN: the destination may start the workload.
    case run(RunGrant)
    /// COMPLETE: every page has been sent.
    case complete
    /// BYE: the source needs nothing more from the destination.
    case bye
}

/// What the driver of a ``SourceMachine`` has to do, in the order given.
///
/// `stop`, `save`, `releaseLocks` and `resume` take their time: their end is reported by an event, and any other event
/// may come before it. At most one of the four is under way at a time.
public enum SourceAction: Hashable, Sendable {
    /// Make the control link, then report `linkUp` or `linkLost`.
    case connect
    /// Put a message on the control link. A link that is already broken swallows it.
    case send(SourceMessage)
    /// Call `proceed()` next; the state between is one to be seen.
    case proceed
    /// Stop the workload, then report `stopped` or `stopFailed`.
    case stop
    /// Save all devices, then report `saved` or `saveFailed`.
    case save
    /// Release the disk locks, then report `released` or `releaseFailed`.
    case releaseLocks
    /// Take the disk locks that are not held and let the workload go on, then report `resumed` or `resumeFailed`.
    case resume
    /// The migration is over: close the link, the reason is for the peer and the log.
    case closeLink(reason: String)
    /// The peer broke the protocol: close the link at once, the reason is for the peer and the log.
    case violation(String)
}

/// The answer to `migrate`.
public enum MigrateAnswer: Hashable, Sendable {
    /// Make the control link, then report `linkUp` or `linkLost`.
    case connect
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to `migrate-start-postcopy`.
public enum StartPostcopyAnswer: Hashable, Sendable {
    /// Accepted: stop the workload now.
    case stop
    /// Accepted: the switchover begins once the destination is ready.
    case remember
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to a command that asks a source which stays stopped to resume.
public enum RetryResumeAnswer: Hashable, Sendable {
    /// Resume; the command ends with the report of `resumed` or `resumeFailed`.
    case resume
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// What a source does with the promise that a RUN never starts.
public enum StartRefusalPolicy: Hashable, Sendable {
    /// It takes the workload back, and the migration has failed.
    case takeBack
    /// It stays in postcopy-active, stopped, and grants another RUN when the destination asks for one.
    case wait
}

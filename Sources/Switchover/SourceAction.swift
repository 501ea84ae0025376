/// A message of the source on the control link.
public enum SourceMessage: Hashable, Sendable {
    /// HELLO and REGIONS: who asks, and what memory the workload has.
    case hello
    /// HELLO that rejoins a migration whose link broke.
    case rejoin
    /// LISTEN: serve faults from now on.
    case listen
    /// DEVICES: the saved state of all devices.
    case devices
    /// PING: answer with the same number once all devices have loaded.
    case ping(UInt64)
    /// RUN: the destination may start the workload. Repeated over a new link.
    case run(RunGrant)
    /// CANCEL: the workload is wanted back; never start it by this token. ``RunToken/none`` if no RUN was sent.
    case cancel(RunToken)
    /// COMPLETE: every page has been sent.
    case complete
    /// BYE: the source needs nothing more from the destination. The link is closed after it.
    case bye
}

/// What the driver of a ``SourceMachine`` has to do, in the order given.
///
/// `stop`, `save`, `releaseLocks`, `seizeLease`, `resume` and `resync` take their time: their end is reported by an
/// event, and any other event may come before it. At most one of them is under way at a time; a `resync` whose link has
/// broken counts no more. `regainLease` may be under way beside any of them.
///
/// Every event of a link (`linkUp`, `linkLost`, a message, `resynced`, `allPagesSent`) counts only while the machine's
/// `link` is that link's number.
public enum SourceAction: Hashable, Sendable {
    /// Make the control link with this number, then report `linkUp` or `linkLost`.
    case connect(LinkNumber)
    /// Make the control link with this number, trying for some time, then report `linkUp`, or `redialGivenUp`: the
    /// destination waits for a word.
    case redial(LinkNumber)
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
    /// Write the source as the owner into the lease's record after the grant's epoch, then report `leaseTaken`, also if
    /// the newest record names the source already, `leaseRefused` if it names the destination, or `leaseUnreachable`.
    case seizeLease(RunGrant)
    /// Make the lease's record name the source, which holds the promise that this token never starts: write over a
    /// record of the promising destination for that token, and over no other. Repeat it until it is done, then report
    /// `leaseRegained`; or `leaseSuperseded` if the newest record is one that the promise does not speak of. At most one
    /// is under way.
    case regainLease(RunToken)
    /// Take the disk locks that are not held and let the workload go on, then report `resumed` or `resumeFailed`.
    case resume
    /// Learn what the destination has of the pages and make lanes, then report `resynced`.
    case resync
    /// Answer every `cancel` that waits: the workload is here.
    case cancelSucceeded
    /// Answer every `cancel` that waits: it failed for this reason.
    case cancelFailed(reason: String)
    /// Answer every `cancel` that waits: what becomes of it is not known yet, for this reason.
    case cancelUnknown(reason: String)
    /// The migration is over, or the link is of no use: close it, the reason is for the peer and the log.
    case closeLink(reason: String)
    /// The peer broke the protocol: close the link at once, the reason is for the peer and the log.
    case violation(String)
}

/// The answer to `migrate`.
public enum MigrateAnswer: Hashable, Sendable {
    /// Make the control link with this number, then report `linkUp` or `linkLost`.
    case connect(LinkNumber)
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

/// The answer to `migrate_cancel`.
public enum CancelAnswer: Hashable, Sendable {
    /// The workload is here.
    case succeeded
    /// Do this; `cancelSucceeded` or `cancelFailed` is among it, or follows. Call `cancelOverdue()` if neither has come
    /// for long.
    case waits([SourceAction])
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to `migrate` with `resume`.
public enum RecoverAnswer: Hashable, Sendable {
    /// Make the control link with this number, then report `linkUp` or `linkLost`.
    case connect(LinkNumber)
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to the operator's word that the destination is gone.
public enum DestinationGoneAnswer: Hashable, Sendable {
    /// Resume; the command ends with the report of `resumed` or `resumeFailed`.
    case takeBack
    /// The migration has failed, and nobody runs the workload.
    case abandoned
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

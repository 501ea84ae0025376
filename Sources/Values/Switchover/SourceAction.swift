package import Identity

/// A message of the source on the control link.
package enum SourceMessage: Hashable, Sendable {
    /// HELLO and REGIONS: the source's identity, and the shape of the workload's memory.
    case hello
    /// HELLO to rejoin a migration whose link broke.
    case rejoin
    /// LISTEN: begin to serve faults.
    case listen
    /// DEVICES: the saved state of all devices.
    case devices
    /// PING: answer with the same number once all devices have loaded.
    case ping(UInt64)
    /// RUN: the destination may start the workload. Over a new link, the source repeats RUN.
    case run(RunGrant)
    /// CANCEL: never start the workload by this token. `RunToken.none` if no RUN was sent.
    case cancel(RunToken)
    /// COMPLETE: every page has been sent.
    case complete
    /// BYE: the source needs nothing more of the destination. The source closes the link after BYE.
    case bye
}

/// What the driver of a ``SourceMachine`` has to do, in the order given.
///
/// `stop`, `save`, `releaseLocks`, `seizeLease`, `resume` and `resync` take time. An event reports the end of each, and
/// other events may come first. At most one of these operations is under way at a time; a `resync` whose link has
/// broken does not count. `regainLease` may run beside any of them.
///
/// The driver reports an event of a link (`linkUp`, `linkLost`, a message, `resynced`, `allPagesSent`) only while the
/// machine's `link` is that link's number.
package enum SourceAction: Hashable, Sendable {
    /// Make the control link with this number, then report `linkUp` or `linkLost`.
    case connect(LinkNumber)
    /// Redial for some time, then report `linkUp` or `redialGivenUp`.
    ///
    /// The destination waits to hear that the workload was taken back. The new control link has this number.
    case redial(LinkNumber)
    /// Send a message on the control link. A broken link drops the message.
    case send(SourceMessage)
    /// Call `proceed()` next; the state in between is one that clients must see.
    case proceed
    /// Do what the move needs while the workload runs, then report `prepared` or `stopFailed`.
    case prepare
    /// Stop the workload, then report `stopped` or `stopFailed`.
    case stop
    /// Save all devices, then report `saved` or `saveFailed`.
    case save
    /// Release the disk locks, then report `released` or `releaseFailed`.
    case releaseLocks
    /// Take the lease: write a record after the grant's epoch that names the source.
    ///
    /// Then report `leaseTaken`, also if the newest record already names the source, `leaseRefused` if that record
    /// names the destination, or `leaseUnreachable`.
    case seizeLease(RunGrant)
    /// Name the source in the lease's record again, by the promise that this token never starts.
    ///
    /// Overwrite only the promising destination's record for that token. Retry until the record is written, then report
    /// `leaseRegained`; report `leaseSuperseded` if the newest record is one that the promise does not cover. At most
    /// one `regainLease` is under way.
    case regainLease(RunToken)
    /// Take the disk locks that are not held and resume the workload, then report `resumed` or `resumeFailed`.
    case resume
    /// Learn which pages the destination has and make new lanes, then report `resynced`.
    case resync
    /// Answer every waiting `cancel`: the workload is here.
    case cancelSucceeded
    /// Answer every waiting `cancel`: it failed for this reason.
    case cancelFailed(reason: String)
    /// Answer every waiting `cancel`: its result is not known yet, for this reason.
    case cancelUnknown(reason: String)
    /// Close the link, which is not needed any more; send the reason to the peer and log it.
    case closeLink(reason: String)
    /// Close the link at once, since the peer broke the protocol; send the reason to the peer and log it.
    case violation(String)
}

/// The answer to `migrate`.
package enum MigrateAnswer: Hashable, Sendable {
    /// Make the control link with this number, then report `linkUp` or `linkLost`.
    case connect(LinkNumber)
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to `migrate-start-postcopy`.
package enum StartPostcopyAnswer: Hashable, Sendable {
    /// Accepted: prepare the workload now.
    case prepare
    /// Accepted: the switchover begins once the destination is ready.
    case remember
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to `migrate-continue`.
package enum MigrateContinueAnswer: Hashable, Sendable {
    /// Accepted: save the devices now.
    case save
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to `migrate_cancel`.
package enum CancelAnswer: Hashable, Sendable {
    /// The workload is here, and no migration is under way.
    case succeeded
    /// The answer comes later, as `cancelSucceeded` or `cancelFailed`, among these actions or after them.
    ///
    /// The driver calls `cancelOverdue()` if no answer has come for long.
    case waits([SourceAction])
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to `migrate` with `resume`.
package enum RecoverAnswer: Hashable, Sendable {
    /// Make the control link with this number, then report `linkUp` or `linkLost`.
    case connect(LinkNumber)
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to the operator's word that the destination is gone.
package enum DestinationGoneAnswer: Hashable, Sendable {
    /// Accepted: resume the workload; the command ends when `resumed` or `resumeFailed` is reported.
    case takeBack
    /// Accepted: the migration has failed, and the workload runs nowhere.
    case abandoned
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to `cont` on a source whose resume has failed.
package enum RetryResumeAnswer: Hashable, Sendable {
    /// Accepted: resume the workload; the command ends when `resumed` or `resumeFailed` is reported.
    case resume
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// What a source does after the promise that a RUN never starts.
package enum StartRefusalPolicy: Hashable, Sendable {
    /// Take the workload back; the migration has failed.
    case takeBack
    /// Keep the workload stopped in postcopy-active, and send another RUN if the destination asks for one.
    case wait
}

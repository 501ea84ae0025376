/// The rules that the machines' drivers follow by themselves, all of them or with one broken on purpose.
struct Driver: Hashable, Sendable {
    /// An event of a link counts only for that link.
    var checksLinks = true
    /// A commit, like every other record, follows only a record of the owner that its writer has seen.
    var checksOwner = true
    /// A regain writes only over a record that the promise covers.
    var regainsOnlyWhatWasPromised = true
    /// A source that begins anew follows a record that a promise covers.
    var followsPromises = true
    /// A session that makes room for the next migration stays until its store has answered.
    var staysForStore = true
    /// A destination that has moved its workload on remembers the migration by which the workload arrived.
    var remembersMigrations = true
    /// A destination waits for the source's BYE before it exits.
    var endsAfterBye = true
    /// A failed undo is repeated.
    var repeatsUndo = true
    /// A failed release of the source's locks is reported as failed.
    var reportsFailedRelease = true
    /// A process that has hung up before it was told to depart counts as not released.
    var noticesHangUp = true
    /// A start whose workload has ended is reported as ended.
    var reportsDeadStart = true
    /// The source itself answers a `cancel` that waits too long.
    var answersOverdueCancel = true
    /// An unreachable lease is asked again.
    var asksLeaseAgain = true
    /// A takeover writes a record of the next epoch.
    ///
    /// If this rule is broken, the records are removed and the epochs begin anew.
    var takesOver = true
    /// A destination's record is taken over only if the source is gone too.
    var takesOverFromBoth = true
}

/// What the drivers of the machines do by themselves: the rules that ship, or one of them broken on purpose.
struct Driver: Hashable, Sendable {
    /// An event of a link counts only for that link.
    var checksLinks = true
    /// A commit, and whatever else is written, follows only a record of the owner that its writer has seen.
    var checksOwner = true
    /// A regain writes only over a record that the promise speaks of.
    var regainsOnlyWhatWasPromised = true
    /// A source that begins anew follows a record that a promise speaks of.
    var followsPromises = true
    /// A destination whose migration is over, and that makes way for the next, waits for its store's answer.
    var staysForStore = true
    /// A destination that has moved its workload on still knows of the migration by which the workload came.
    var remembersMigrations = true
    /// A destination that ends waits for the source's BYE.
    var endsAfterBye = true
    /// An undo that failed is repeated.
    var repeatsUndo = true
    /// A release of the source's locks that failed is reported as that.
    var reportsFailedRelease = true
    /// A start whose workload has ended is reported as that.
    var reportsDeadStart = true
    /// A `cancel` that is not answered for long is answered by the source itself.
    var answersOverdueCancel = true
    /// A record that is taken over gets the next epoch. Otherwise the records are removed, and epochs begin anew.
    var takesOver = true
    /// A destination's record is taken over only if its source is gone as well.
    var takesOverFromBoth = true
}

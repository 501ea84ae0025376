/// The exit statuses of every command; the article Operate has them for supervisors.
enum ExitStatus: Int32, CaseIterable {
    /// The work is done.
    case done = 0
    /// The work failed.
    case failed = 1
    /// The command, its configuration file or its environment is wrong: to start it again is in vain.
    case usedWrongly = 2
    /// The file that `serve` serves has changed, so that it no longer belongs to the snapshot's state.
    case snapshotChanged = 3
}

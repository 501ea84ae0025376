/// What a client sees of a migration, in the words of QEMU's `MigrationStatus`.
public enum MigrationState: String, Hashable, Sendable, CaseIterable {
    /// Nothing was asked.
    case none
    /// The two sides look for each other and compare what they have.
    case setup
    /// Both sides are ready; the workload runs on the source.
    case active
    /// The workload is being stopped and its devices are being saved.
    case device
    /// The destination has, or is about to have, the devices' state; it does not run.
    case postcopyDevice = "postcopy-device"
    /// The source has sent RUN, the destination runs.
    case postcopyActive = "postcopy-active"
    /// The link broke after RUN; the pages that are missing wait for a new one.
    case postcopyPaused = "postcopy-paused"
    /// A new link is being made for a paused migration.
    case postcopyRecoverSetup = "postcopy-recover-setup"
    /// The two sides compare what has arrived over a new link.
    case postcopyRecover = "postcopy-recover"
    /// The workload and all of its memory have moved.
    case completed
    /// A cancel was asked for and is not yet decided.
    case cancelling
    /// The workload was taken back because a cancel asked for it.
    case cancelled
    /// The migration ended without moving the workload.
    case failed
}

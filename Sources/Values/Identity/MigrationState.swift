/// The state of a migration as clients see it, by the names of QEMU's `MigrationStatus`.
package enum MigrationState: String, Codable, Hashable, Sendable, CaseIterable {
    /// No migration was requested.
    case none
    /// The two sides connect and compare their configurations.
    case setup
    /// Both sides are ready; the workload runs on the source.
    case active
    /// The workload is stopped, and the switchover waits for `migrate-continue`.
    case preSwitchover = "pre-switchover"
    /// The workload's devices are being saved.
    case device
    /// The destination receives or has loaded the devices' state; the workload does not run there yet.
    case postcopyDevice = "postcopy-device"
    /// The source has sent RUN, or the workload runs on the destination.
    case postcopyActive = "postcopy-active"
    /// The link broke after RUN; missing pages wait for a new link.
    case postcopyPaused = "postcopy-paused"
    /// The source makes a new link for a paused migration.
    case postcopyRecoverSetup = "postcopy-recover-setup"
    /// The two sides compare over a new link which pages have arrived.
    case postcopyRecover = "postcopy-recover"
    /// The workload and all of its memory have moved.
    case completed
    /// A cancel was requested, and its result is not known yet.
    case cancelling
    /// A cancel has ended the migration without moving the workload.
    case cancelled
    /// The migration ended without moving the workload.
    case failed
}

extension MigrationState {
    /// Decodes the name of a state.
    ///
    /// - Throws: `DecodingError.dataCorrupted` with the name if it is not that of a state.
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let name = try container.decode(String.self)
        guard let state = MigrationState(rawValue: name) else {
            throw DecodingError.dataCorruptedError(
                in: container,
                debugDescription: "'\(name)' is no state of a migration"
            )
        }
        self = state
    }
}

extension MigrationState: CustomStringConvertible {
    /// The name of the state, as QEMU has it.
    package var description: String { rawValue }
}

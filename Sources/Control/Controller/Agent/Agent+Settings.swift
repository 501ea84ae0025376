import Compression
import Identity
import PageServer
import QMP
import Switchover

/// Settings of migrations: supported choices are stored, and everything else is refused by its name.
extension Agent {
    /// `query-migrate-capabilities`: the capabilities that a client can switch on and off.
    func queryCapabilities() -> JSONValue {
        .array(
            MigrationCapability.allCases.compactMap { capability in
                guard case .choice = capability.standing else { return nil }
                return ["capability": .string(capability.rawValue), "state": .boolean(isOn(capability))]
            }
        )
    }

    /// Whether a migration that begins now has a capability.
    func isOn(_ capability: MigrationCapability) -> Bool {
        switch capability.standing {
        case .choice(let initially): capabilities[capability] ?? initially
        case .always: true
        case .never: false
        }
    }

    /// `migrate-set-capabilities`: sets all of the capabilities or none, for later migrations.
    ///
    /// A capability without a choice may be set to false, which has no effect. During an outgoing migration the command
    /// is refused, as in QEMU, since it could not affect that migration.
    func setCapabilities(_ command: QMPCommand) async throws(QMPError) {
        if let state = await outgoing?.snapshot().state, !state.isEnd {
            throw .generic(
                "There's a migration process in progress: it is \(state.rawValue), and keeps the capabilities that it "
                    + "began with; set them when it has ended"
            )
        }
        var changed = capabilities
        for (index, element) in try command.array("capabilities").enumerated() {
            guard let members = element.object else {
                throw .generic("Invalid parameter type for 'capabilities[\(index)]', expected: object")
            }
            let entry = QMPCommand(name: command.name, arguments: members)
            try entry.allowOnly("capability", "state")
            let name = try entry.string("capability")
            let state = try entry.boolean("state")
            guard let capability = MigrationCapability(rawValue: name) else {
                throw .generic("Parameter 'capability' does not accept value '\(name)'")
            }
            switch capability.standing {
            case .choice: changed[capability] = state
            case .always: break
            case .never(let reason):
                guard !state else {
                    throw .generic("Capability '\(name)' is not supported: \(reason); leave it off")
                }
            }
        }
        capabilities = changed
        sink.tellsStates(isOn(.events))
    }

    /// Refuses to begin a migration while the capability `postcopy-ram` is off.
    func requirePostcopy() throws(CommandRefused) {
        guard isOn(.postcopyRAM) else {
            throw CommandRefused(
                reason: "every migration here is postcopy, and the capability postcopy-ram is off; "
                    + "set postcopy-ram to true with migrate-set-capabilities"
            )
        }
    }

    /// `query-migrate-parameters`: the values in effect, and those that were set but have no effect.
    func queryParameters() -> JSONValue {
        var answer: [String: JSONValue] = [:]
        for parameter in MigrationParameter.allCases {
            answer[parameter.rawValue] = parameters[parameter] ?? parameter.initial
        }
        return .object(answer)
    }

    /// Upper bound on the push of a source, in bytes per second; 0 sets no bound.
    var maxPostcopyBandwidth: Int {
        parameters[.maxPostcopyBandwidth]?.integer.map { Int($0) } ?? configuration.maxPostcopyBandwidth
    }

    /// The number of bulk lanes of migrations that begin later; nil to choose it by the link.
    var pushLanes: Int? {
        guard let lanes = parameters[.multifdChannels]?.integer, lanes > 0 else { return nil }
        return Int(lanes)
    }

    /// How a migration that begins now compresses pushed pages.
    var compression: PushCompression {
        parameters[.multifdCompression]?.string.flatMap { PushCompression(rawValue: $0) } ?? configuration.compression
    }

    /// `migrate-set-parameters`: sets all of the parameters or none, also for a migration that is under way.
    func setParameters(_ command: QMPCommand) throws(QMPError) {
        var changed = parameters
        for name in command.arguments.keys.sorted() {
            guard let parameter = MigrationParameter(rawValue: name) else {
                throw .generic("Parameter '\(name)' is unexpected")
            }
            changed[parameter] = try parameter.take(from: command)
        }
        parameters = changed
        outgoing?.pageServer.limitPush(bytesPerSecond: maxPostcopyBandwidth)
    }
}

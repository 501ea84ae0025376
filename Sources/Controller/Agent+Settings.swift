import QMP
import SourceAgent

/// How migrations are to go: what can be chosen is taken, everything else is refused by its name.
extension Agent {
    /// `query-migrate-capabilities`.
    func queryCapabilities() -> JSONValue {
        .array(
            MigrationCapability.allCases.map {
                ["capability": .string($0.rawValue), "state": .boolean($0.isOn ?? releasesMemory)]
            }
        )
    }

    /// `migrate-set-capabilities`: takes what is so or can be chosen, for migrations that begin later, and refuses what
    /// is not.
    func setCapabilities(_ command: QMPCommand) throws(QMPError) {
        var releasesMemory = releasesMemory
        try command.allowOnly("capabilities")
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
            guard let isOn = capability.isOn else {
                releasesMemory = state
                continue
            }
            guard state == isOn else {
                throw .generic(
                    state
                        ? "Capability '\(name)' is not supported"
                        : "Capability '\(name)' is part of every migration here and cannot be disabled"
                )
            }
        }
        self.releasesMemory = releasesMemory
    }

    /// `query-migrate-parameters`: those that can be kept.
    func queryParameters() -> JSONValue {
        .object(
            Dictionary(
                uniqueKeysWithValues: MigrationParameter.allCases.map { ($0.rawValue, JSONValue(parameter($0))) }
            )
        )
    }

    func parameter(_ parameter: MigrationParameter) -> Int { parameters[parameter] ?? parameter.initial }

    /// `migrate-set-parameters`: all of them or none, at once also on a migration that is under way.
    func setParameters(_ command: QMPCommand) throws(QMPError) {
        var changed = parameters
        for name in command.arguments.keys.sorted() {
            guard let parameter = MigrationParameter(rawValue: name) else {
                throw .generic("Parameter '\(name)' is not supported")
            }
            let value = Int(try command.integer(name))
            guard parameter.range.contains(value) else {
                let range = "\(parameter.range.lowerBound) to \(parameter.range.upperBound)"
                throw .generic("Parameter '\(name)' expects an integer in the range of \(range) \(parameter.unit)")
            }
            changed[parameter] = value
        }
        parameters = changed
        outgoing?.agent.limitPush(bytesPerSecond: parameter(.maxPostcopyBandwidth))
    }
}

import QMP
import SourceAgent

/// How migrations are to go: what can be chosen is taken, everything else is refused by its name.
extension Agent {
    /// `query-migrate-capabilities`.
    func queryCapabilities() -> JSONValue {
        .array(
            MigrationCapability.allCases.map { ["capability": .string($0.rawValue), "state": .boolean($0.isOn)] }
        )
    }

    /// `migrate-set-capabilities`: takes what is so, and refuses what is not.
    func setCapabilities(_ command: QMPCommand) throws(QMPError) {
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
            guard state == capability.isOn else {
                throw .generic(
                    state
                        ? "Capability '\(name)' is not supported"
                        : "Capability '\(name)' is part of every migration here and cannot be disabled"
                )
            }
        }
    }

    private static let maxPostcopyBandwidthName = "max-postcopy-bandwidth"

    /// `query-migrate-parameters`: those that have an effect.
    func queryParameters() -> JSONValue {
        [Agent.maxPostcopyBandwidthName: JSONValue(maxPostcopyBandwidth)]
    }

    /// `migrate-set-parameters`: takes those that have an effect, at once also on a migration that is under way.
    func setParameters(_ command: QMPCommand) throws(QMPError) {
        let name = Agent.maxPostcopyBandwidthName
        if let other = command.arguments.keys.sorted().first(where: { $0 != name }) {
            throw .generic("Parameter '\(other)' is not supported")
        }
        guard let bandwidth = try command.integerIfPresent(name) else { return }
        guard bandwidth >= 0 else {
            throw .generic("Parameter '\(name)' expects an integer in the range of 0 to \(Int64.max) bytes/second")
        }
        maxPostcopyBandwidth = Int(bandwidth)
        outgoing?.agent.limitPush(bytesPerSecond: maxPostcopyBandwidth)
    }
}

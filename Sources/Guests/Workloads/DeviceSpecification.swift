/// A device that a command line adds to those every built-in workload has.
///
/// The text form, on command lines and on the wire, is `disk:PATH`, `hook:PATH`, `broken:save|load|start`,
/// `slow:save=SECONDS` (or `load=`, `start=`), `reads-memory` or `large:MIB`.
package enum DeviceSpecification: Hashable, Sendable {
    /// A step of a device's move to the destination.
    package enum Step: String, CaseIterable, Hashable, Sendable {
        /// The source saves the device's state.
        case save
        /// The destination loads the state.
        case load
        /// The destination starts the workload.
        case start
    }

    /// A disk image, locked where the workload runs; both hosts have the image at this path.
    case disk(path: String)
    /// A program that runs before each start and after each stop; both hosts have the program at this path.
    case hook(path: String)
    /// A device that fails at a step.
    case broken(at: Step)
    /// A device that takes that many seconds for a step, up to 3600.
    case slow(at: Step, seconds: Double)
    /// A device that reads guest memory while it loads.
    case readsMemory
    /// A device with a state of that many MiB, up to 1023; the states of all devices together have at most 1 GiB.
    case large(mebibytes: Int)

    /// Reads the text form.
    ///
    /// - Throws: ``WorkloadError`` that lists the valid forms.
    package init(parsing text: String) throws(WorkloadError) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let argument = parts.count == 2 ? String(parts[1]) : nil
        switch (parts.first, argument) {
        case ("disk", .some(let path)):
            guard DeviceSpecification.isPath(path) else { throw .path(text) }
            self = .disk(path: path)
        case ("hook", .some(let path)):
            guard DeviceSpecification.isPath(path) else { throw .path(text) }
            self = .hook(path: path)
        case ("broken", .some(let argument)):
            guard let step = Step(rawValue: argument) else { throw .device(text) }
            self = .broken(at: step)
        case ("slow", .some(let argument)):
            let pair = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard pair.count == 2, let step = Step(rawValue: String(pair[0])), let seconds = Double(pair[1]),
                (0...3600).contains(seconds)
            else { throw .device(text) }
            self = .slow(at: step, seconds: seconds)
        case ("reads-memory", .none):
            self = .readsMemory
        case ("large", .some(let argument)):
            guard let mebibytes = Int(argument), (1...1023).contains(mebibytes) else { throw .device(text) }
            self = .large(mebibytes: mebibytes)
        default:
            throw .device(text)
        }
    }

    /// Whether a text can be the absolute path of a file.
    private static func isPath(_ text: String) -> Bool {
        text.hasPrefix("/") && !text.hasSuffix("/") && text.utf8.count < 4096 && !text.utf8.contains(0)
    }

    /// The name of the device, unless another device already has that name.
    var deviceName: String {
        switch self {
        case .disk: "disk"
        case .hook: "hook"
        case .broken: "broken"
        case .slow: "slow"
        case .readsMemory: "reads-memory"
        case .large: "large"
        }
    }
}

extension DeviceSpecification: CustomStringConvertible {
    /// The text form.
    package var description: String {
        switch self {
        case .disk(let path): "disk:\(path)"
        case .hook(let path): "hook:\(path)"
        case .broken(let step): "broken:\(step.rawValue)"
        case .slow(let step, let seconds): "slow:\(step.rawValue)=\(seconds)"
        case .readsMemory: "reads-memory"
        case .large(let mebibytes): "large:\(mebibytes)"
        }
    }
}

extension DeviceSpecification: Codable {
    /// Reads the text form.
    ///
    /// - Throws: `DecodingError` if the value is no string, ``WorkloadError`` if the string is no valid form.
    package init(from decoder: any Decoder) throws {
        try self.init(parsing: decoder.singleValueContainer().decode(String.self))
    }

    /// Writes the text form.
    ///
    /// - Throws: the encoder's error.
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

extension WorkloadError {
    fileprivate static func path(_ text: String) -> WorkloadError {
        WorkloadError(
            "'\(text)' is not a device: its path must be the absolute one of a file, at which both hosts have it"
        )
    }

    fileprivate static func device(_ text: String) -> WorkloadError {
        WorkloadError(
            "'\(text)' is not a device; give disk:PATH, hook:PATH (absolute), broken:save|load|start, "
                + "slow:save=SECONDS (or load=, start=; up to 3600), reads-memory, or large:MIB (up to 1023)"
        )
    }
}

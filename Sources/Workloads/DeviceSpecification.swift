/// A device that is asked for on a command line, beside those every workload has.
///
/// Its text form is `disk:PATH`, `hook:PATH`, `broken:save|load|start`, `slow:save=SECONDS` (or `load=`, `start=`),
/// `reads-memory` or `large:MIB`; it travels in this form too.
public enum DeviceSpecification: Hashable, Sendable {
    /// A step of a device's way to the other side.
    public enum Step: String, CaseIterable, Hashable, Sendable {
        /// Its state is saved.
        case save
        /// Its state is loaded.
        case load
        /// It is started where its state was loaded.
        case start
    }

    /// Has a disk image, locked where the workload runs; both hosts have it at this path.
    case disk(path: String)
    /// Runs a program before each start and after each stop; both hosts have it at this path.
    case hook(path: String)
    /// Fails at a step.
    case broken(at: Step)
    /// Takes that many seconds for a step.
    case slow(at: Step, seconds: Double)
    /// Reads guest memory while it loads.
    case readsMemory
    /// Has a state of that many MiB; all devices together travel with less than 1 GiB.
    case large(mebibytes: Int)

    /// Reads the text form.
    ///
    /// - Throws: ``WorkloadError`` that names the forms there are.
    public init(parsing text: String) throws(WorkloadError) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let argument = parts.count == 2 ? String(parts[1]) : nil
        switch (parts.first, argument) {
        case ("disk", .some(let path)):
            guard DeviceSpecification.isPath(path) else { throw .device(text) }
            self = .disk(path: path)
        case ("hook", .some(let path)):
            guard DeviceSpecification.isPath(path) else { throw .device(text) }
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

    /// Whether a text can be the path of a file, for both hosts and whatever directory their agents are in.
    private static func isPath(_ text: String) -> Bool {
        text.hasPrefix("/") && !text.hasSuffix("/") && text.utf8.count < 4096 && !text.utf8.contains(0)
    }

    /// The name of a device made from this, unless another device has it already.
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
    public var description: String {
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
    public init(from decoder: any Decoder) throws {
        try self.init(parsing: decoder.singleValueContainer().decode(String.self))
    }

    /// Writes the text form.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

extension WorkloadError {
    fileprivate static func device(_ text: String) -> WorkloadError {
        WorkloadError(
            "'\(text)' is no device; give disk:PATH, hook:PATH (absolute), broken:save|load|start, "
                + "slow:save=SECONDS (or load=, start=; up to 3600), reads-memory, or large:MIB (up to 1023)"
        )
    }
}

import ArgumentParser
import Workloads

/// What `--workload` says.
enum WorkloadKind: ExpressibleByArgument, CustomStringConvertible {
    /// A built-in workload.
    case pattern(AccessPattern)
    /// A guest in a virtual machine.
    case kvm

    init?(argument: String) {
        if argument == "kvm" {
            self = .kvm
        } else {
            guard let pattern = AccessPattern(rawValue: argument) else { return nil }
            self = .pattern(pattern)
        }
    }

    static var allValueStrings: [String] { AccessPattern.allCases.map(\.rawValue) + ["kvm"] }

    var description: String {
        switch self {
        case .pattern(let pattern): pattern.rawValue
        case .kvm: "kvm"
        }
    }

    var defaultValueDescription: String { description }
}

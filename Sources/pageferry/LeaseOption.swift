import ArgumentParser

/// `--lease`: where a workload's run lease is kept.
enum LeaseOption: ExpressibleByArgument, CustomStringConvertible {
    case none
    case files(directory: String, workload: String)

    init?(argument: String) {
        if argument == "none" {
            self = .none
            return
        }
        guard let slash = argument.lastIndex(of: "/"), argument.index(after: slash) < argument.endIndex else {
            return nil
        }
        let directory = slash == argument.startIndex ? "/" : String(argument[..<slash])
        self = .files(directory: directory, workload: String(argument[argument.index(after: slash)...]))
    }

    var description: String {
        switch self {
        case .none: "none"
        case .files(let directory, let workload): "\(directory)/\(workload)"
        }
    }
}

import ArgumentParser
import Foundation

/// The options of a command that take one value, as the parser describes them in JSON.
struct SingleOptions: Decodable {
    private struct Command: Decodable {
        let arguments: [Argument]?
    }

    private struct Argument: Decodable {
        let kind: String
        let isRepeating: Bool
        let names: [Name]?
    }

    private struct Name: Decodable {
        let name: String
    }

    private let command: Command

    /// Returns the names of those options, with their hyphens.
    static func names(of command: any ParsableCommand.Type) throws -> Set<String> {
        let described = try JSONDecoder().decode(SingleOptions.self, from: Data(command._dumpHelp().utf8))
        let single = (described.command.arguments ?? []).filter { $0.kind == "option" && !$0.isRepeating }
        return Set(single.flatMap { $0.names ?? [] }.map { "--\($0.name)" })
    }
}

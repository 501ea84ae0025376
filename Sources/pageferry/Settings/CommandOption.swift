import ArgumentParser
import Foundation

/// An option of a command, as the parser describes it in JSON.
struct CommandOption: Sendable {
    /// What an option takes.
    enum Kind: Sendable {
        /// The option takes no value: it is given, or not.
        case flag
        /// The option takes no value: it is given, its opposite `--no-NAME` is, or neither.
        case invertible
        /// One value.
        case value
        /// One value, or none, which means this value.
        case optionalValue(otherwise: String)
        /// One value each time that the option is given.
        case list
    }

    /// The name without its hyphens.
    let name: String
    let kind: Kind
    /// Whether the help of the command shows the option.
    let isShown: Bool
    let isRequired: Bool
    /// What the help says about the value of an option that is not given; nil if it says nothing.
    let usual: String?

    /// The options of a command, in the order of its help, without those of every command, such as `--help`.
    static func all(of command: any ParsableCommand.Type) throws -> [CommandOption] {
        let described = try JSONDecoder().decode(Description.self, from: Data(command._dumpHelp().utf8))
        let arguments = (described.command.arguments ?? []).filter { $0.kind != "positional" }
        let names = Set(arguments.compactMap(\.name))
        return arguments.compactMap { argument in
            guard let name = argument.name, !["help", "version"].contains(name) else { return nil }
            // The parser describes the opposite of an option as an option of its own.
            if name.hasPrefix("no-"), names.contains(String(name.dropFirst(3))) { return nil }
            return CommandOption(
                name: name,
                kind: kind(of: argument, isInvertible: names.contains("no-\(name)")),
                isShown: argument.shouldDisplay,
                isRequired: !argument.isOptional,
                usual: usual(argument)
            )
        }
    }

    private static func kind(of argument: Argument, isInvertible: Bool) -> Kind {
        switch argument {
        case _ where argument.kind == "flag": isInvertible ? .invertible : .flag
        case _ where argument.isRepeating: .list
        case _ where argument.mayLackValue: .optionalValue(otherwise: argument.defaultValue ?? "")
        default: .value
        }
    }

    /// Finds the default in the help, which is a member of the description, or words in parentheses.
    private static func usual(_ argument: Argument) -> String? {
        let words = argument.abstract ?? ""
        if let told = words.matches(of: /\(default: ([^)]*(\([^)]*\))?[^)]*)\)/).last { return String(told.1) }
        return argument.mayLackValue ? nil : argument.defaultValue
    }

    private struct Description: Decodable {
        let command: Command
    }

    private struct Command: Decodable {
        let arguments: [Argument]?
    }

    private struct Argument: Decodable {
        let kind: String
        let isOptional: Bool
        let isRepeating: Bool
        let shouldDisplay: Bool
        let names: [Name]?
        let defaultValue: String?
        let abstract: String?

        /// Whether the option may be given without a value, which only its help says.
        var mayLackValue: Bool { abstract?.contains("(default without") ?? false }

        /// The long name.
        var name: String? { names?.first { $0.kind == "long" }?.name }
    }

    private struct Name: Decodable {
        let kind: String
        let name: String
    }
}

extension CommandOption {
    /// Whether a file and the environment can give the option.
    ///
    /// The options that name the file itself can only be given on the command line, and so can an operator's statements.
    var isConfigurable: Bool {
        isShown && !ConfigurationOptions.names.contains(name) && !CommandOption.statements.contains(name)
    }

    /// What an operator states of one moment: stated at every call, it would let a workload run twice.
    private static let statements: Set = ["destination-is-gone", "workload-is-lost", "take"]

    /// Whether the option takes one value, and so can be given once.
    var takesOneValue: Bool {
        switch kind {
        case .value, .optionalValue: true
        case .flag, .invertible, .list: false
        }
    }

    /// The names that the option has on a command line, with their hyphens.
    var spellings: [String] {
        if case .invertible = kind { ["--\(name)", "--no-\(name)"] } else { ["--\(name)"] }
    }

    /// The words of a command line that give the option these values.
    func words(for values: [String]) -> [String] {
        switch kind {
        case .flag: values == ["true"] ? ["--\(name)"] : []
        case .invertible: [values == ["true"] ? "--\(name)" : "--no-\(name)"]
        case .value, .list: values.map { "--\(name)=\($0)" }
        case .optionalValue(let otherwise):
            values == ["false"] ? [] : values.map { "--\(name)=\($0 == "true" ? otherwise : $0)" }
        }
    }

    /// The values that a command line gives the option; nil if it does not.
    func values(in words: [String]) -> [String]? {
        let words = Array(words.prefix { $0 != "--" })
        var values: [String] = []
        for (place, word) in words.enumerated() {
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard spellings.contains(parts[0]) else { continue }
            switch kind {
            case .flag, .invertible: values = [parts[0].hasPrefix("--no-") && spellings.count > 1 ? "false" : "true"]
            case .value, .list:
                let next = parts.dropFirst().first ?? words.dropFirst(place).dropFirst().first
                if let value = next { values.append(value) }
            case .optionalValue(let otherwise):
                let next = words.dropFirst(place).dropFirst().first.flatMap { $0.hasPrefix("-") ? nil : $0 }
                values.append(parts.dropFirst().first ?? next ?? otherwise)
            }
        }
        return values.isEmpty ? nil : values
    }
}

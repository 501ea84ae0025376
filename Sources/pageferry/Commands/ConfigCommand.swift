import ArgumentParser
import Foundation
import Telemetry

/// Prints the options that are in force for a command, and where each of them comes from.
struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config",
        abstract: "Show which options are in force for a command, and where each value comes from.",
        discussion: """
            An option comes from the command line, or else from a variable, or else from the configuration file, or else \
            it has its default. Write the command line that you want to know about behind `pageferry config`. If that \
            command would be refused, the command says why and exits with status 2. Without a command line, only the \
            file is checked, and what it and the environment say for any command is shown.

            Examples:

              pageferry config
              pageferry config attach --from 10.0.0.1:7200
              pageferry config --json serve
            """
    )

    @Flag(help: "Print one JSON object for each option, each on its own line.")
    var json = false

    @OptionGroup var configurationOptions: ConfigurationOptions

    @Argument(
        parsing: .captureForPassthrough,
        help: ArgumentHelp("A command and its options.", valueName: "command-line")
    )
    var words: [String] = []

    /// One option, as it is printed.
    private struct Line: Encodable {
        let command: String
        let option: String
        let value: String?
        let values: [String]
        let source: String
    }

    func run() throws {
        var environment = ProcessInfo.processInfo.environment
        if let file = configurationOptions.config { environment[ConfigurationOptions.variable] = file }
        guard let name = words.first else { return try showAll(environment) }
        // The words of a command line are not parsed, and so neither is this one.
        if name == "--help" || name == "-h" { throw CleanExit.helpRequest(self) }
        try UsageError.checkTwice(words)
        let invocation = try Invocation(words, environment, showsAll: true)
        guard !invocation.settings.isEmpty else {
            let unknown = UsageError.command(of: words) == nil ? UsageError.unknownCommand(name) : nil
            throw ValidationError(unknown ?? "'\(name)' takes no options of a file or of the environment")
        }
        Invocation.current = invocation
        if !json { Terminal.show(["file: \(invocation.file ?? "none")"]) }
        try show(invocation.settings, of: name)
        // After the table, which shows where a value comes from that is refused.
        _ = try Pageferry.parseAsRoot(invocation.words)
    }

    private func showAll(_ environment: [String: String]) throws {
        let file = try Invocation.path([], environment)
        if !json { Terminal.show(["file: \(file ?? "none")"]) }
        for command in Invocation.commands {
            let settings = try Invocation([command._commandName], environment).settings.filter { $0.source != .usual }
            try show(settings, of: command._commandName)
        }
    }

    private func show(_ settings: [Invocation.Setting], of command: String) throws {
        for setting in settings {
            let name = setting.option.name
            if json {
                Terminal.show(
                    json: try JSONLine.encode(
                        Line(
                            command: command,
                            option: name,
                            value: setting.values.isEmpty ? setting.option.usual : nil,
                            values: setting.values,
                            source: "\(setting.source)"
                        )
                    )
                )
                continue
            }
            let usual = setting.option.usual ?? (setting.option.isRequired ? "(required)" : "-")
            let value = setting.values.isEmpty ? usual : setting.values.joined(separator: " ")
            Terminal.show([
                "\(command) \(name)".padded(to: 30) + " " + value.padded(to: 30) + " \(setting.source)"
            ])
        }
    }
}

extension String {
    fileprivate func padded(to width: Int) -> String {
        self + String(repeating: " ", count: max(0, width - count))
    }
}

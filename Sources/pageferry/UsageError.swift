import ArgumentParser

/// The error of a wrong command line, in one line: what is wrong, and which help describes the right form.
struct UsageError: CustomStringConvertible {
    let description: String

    /// Makes the line from an error of the parser or of a command's own check.
    ///
    /// The line names the places of the values that the error is about, if they are not on the command line.
    init(_ error: any Error, of invocation: Invocation) {
        let arguments = invocation.words
        let command = UsageError.command(of: arguments)
        let name = command.map { "pageferry \($0._commandName)" } ?? "pageferry"
        let known = UsageError.options(of: command ?? Pageferry.self)
        let reason =
            UsageError.unknownCommand(command == nil ? arguments.first : nil)
            ?? UsageError.unknownOption(in: arguments, known)
            ?? UsageError.oneLine(Pageferry.message(for: error), of: arguments)
        description = "error: \(reason)\(invocation.origins(of: reason)); see \(name) --help"
    }

    /// Refuses `help` for an unknown command, for which the parser would print the list of commands.
    static func checkHelp(_ arguments: [String]) throws {
        guard arguments.first == "help", arguments.count > 1 else { return }
        let asked = Array(arguments.dropFirst())
        guard command(of: asked) == nil, let unknown = unknownCommand(asked.first) else { return }
        throw ValidationError(unknown)
    }

    /// Refuses an option that is given twice and takes one value; the parser would drop the first value silently.
    static func checkTwice(_ arguments: [String]) throws {
        let words = arguments.prefix { $0 != "--" }.filter { $0.hasPrefix("--") }
        var given: Set<Substring> = []
        let twice = words.map { $0.prefix { $0 != "=" } }.filter { !given.insert($0).inserted }
        guard !twice.isEmpty, let command = command(of: arguments) else { return }
        let single = try CommandOption.all(of: command).filter(\.takesOneValue).map { "--\($0.name)" }
        guard let name = twice.first(where: { single.contains(String($0)) }) else { return }
        throw ValidationError("\(name) is given twice, and takes one value: drop one of the two")
    }

    /// Returns the subcommand whose name is the first argument, or nil.
    static func command(of arguments: [String]) -> (any ParsableCommand.Type)? {
        Pageferry.configuration.subcommands.first { $0._commandName == arguments.first }
    }

    /// Returns an error about the first option that the command does not have, or nil.
    ///
    /// If another option is missing as well, the parser itself would report only the missing one.
    private static func unknownOption(in arguments: [String], _ known: [String]) -> String? {
        let words = arguments.prefix { $0 != "--" }.filter { $0.hasPrefix("--") }
        let names = words.map { String($0.prefix { $0 != "=" }) }
        guard let unknown = names.first(where: { !known.contains($0) }) else { return nil }
        return "unknown option '\(unknown)'" + Suggestion.of(unknown, among: known)
    }

    static func unknownCommand(_ word: String?) -> String? {
        guard let word, !word.hasPrefix("-"), word != "help" else { return nil }
        let shown = Pageferry.configuration.subcommands.filter { $0.configuration.shouldDisplay }
        return "unknown command '\(word)'" + Suggestion.of(word, among: shown.map { $0._commandName })
    }

    /// Returns the long options in the help of a command, including the hidden ones.
    private static func options(of command: any ParsableCommand.Type) -> [String] {
        let help = command.helpMessage(includeHidden: true, columns: 1000)
        let names = help.split(separator: "\n").filter { $0.hasPrefix("  -") }.flatMap { line in
            // A line begins with names, such as `-h, --help` or `--log-times/--no-log-times`. Value and help follow.
            line.split(whereSeparator: { " ,/".contains($0) }).prefix { $0.hasPrefix("-") }.map(String.init)
        }
        let everywhere = ["--help", "--help-hidden", "--version", "--generate-completion-script"]
        return names.filter { $0.hasPrefix("--") } + everywhere
    }

    /// Turns the parser's message into one line that continues a sentence.
    ///
    /// A message may end in a list of the valid values, one on each line.
    private static func oneLine(_ message: String, of arguments: [String]) -> String {
        let lines = message.split(separator: "\n").map(String.init)
        let list = " the following:"
        var reason = lines.joined(separator: " ")
        if let head = lines.first, head.hasSuffix(list) {
            let values = lines.dropFirst().map { $0.drop { " -".contains($0) } }
            reason = head.dropLast(list.count) + " " + values.joined(separator: ", ")
        }
        reason.replace(". Please provide one of ", with: ": write one of ")
        if reason.hasPrefix("The value "), !reason.contains("': "), reason.hasSuffix("'") {
            reason += ": \(form(reason))"
        }
        if reason.hasPrefix("Missing value"), let wrong = wordInsteadOfValue(reason, arguments) {
            reason =
                wrong.dropFirst().first.map { $0.isNumber || $0 == "." } == true
                ? "The value '\(wrong)' is invalid\(reason.dropFirst("Missing value".count)): it must not be negative"
                : "\(reason) before '\(wrong)'"
        }
        if reason.hasPrefix("Missing expected argument '--"), let word = strayWord(in: arguments) {
            reason += ", and '\(word)' belongs to no option"
        }
        while reason.hasSuffix(".") { reason.removeLast() }
        return reason.prefix(1).lowercased() + reason.dropFirst()
    }

    /// Returns the first word that is neither an option nor the value of one; nil if there is none.
    private static func strayWord(in arguments: [String]) -> String? {
        guard let command = command(of: arguments) else { return nil }
        let help = command.helpMessage(includeHidden: true, columns: 1000)
        var words = arguments.dropFirst()
        while let word = words.popFirst() {
            guard word.hasPrefix("-") else { return word }
            // The help shows the value of an option behind its name.
            if help.contains("\(word) <") { words = words.dropFirst() }
        }
        return nil
    }

    /// Returns the word in place of a missing value, such as a negative number.
    ///
    /// `reason` is the parser's `Missing value for '--option <a>'`.
    private static func wordInsteadOfValue(_ reason: String, _ arguments: [String]) -> String? {
        let option = reason.drop { $0 != "-" }.prefix { !" '".contains($0) }
        return arguments.firstIndex { $0 == option }.flatMap { arguments.dropFirst($0 + 1).first }
    }

    /// Describes the valid value of an option, if the parser only says `… is invalid for '--option <a|b>'`.
    private static func form(_ reason: String) -> String {
        let name = reason.split(separator: "<").last?.prefix { $0 != ">" } ?? ""
        if let value = reason.dropFirst("The value '".count).first, value == "-" { return "it must not be negative" }
        return name.contains("|")
            ? "write one of \(name.split(separator: "|").joined(separator: ", "))" : "write a number"
    }
}

import ArgumentParser
import Configuration
import Foundation
import LinuxSystem
import Synchronization

/// A command line, completed by the options that the environment and the configuration file give.
///
/// An option of the command line replaces the same option of the environment, which replaces that of the file. All its
/// values are replaced if it may be given several times. The parser then checks every value alike.
struct Invocation: Sendable {
    /// Where the values of an option come from.
    enum Source: Equatable, Sendable {
        case commandLine
        case environment(variable: String)
        case file(path: String, line: Int, key: String)
        /// The option is not given.
        case usual
    }

    /// An option of the command, and its values.
    struct Setting: Sendable {
        let option: CommandOption
        /// Empty if the option is not given.
        let values: [String]
        let source: Source
    }

    /// The words of the user, without the name of the program.
    let given: [String]
    /// The words for the parser.
    let words: [String]
    /// The file that was read; nil if there is none.
    let file: String?
    /// The options of the command; empty if neither the environment nor a file can give any.
    let settings: [Setting]
    /// The variables of Pageferry in the environment of the user.
    ///
    /// Kept, since ``LineLog`` changes those of this process.
    let variables: [String: String]

    private init(
        given: [String],
        words: [String],
        file: String?,
        settings: [Setting],
        variables: [String: String] = [:]
    ) {
        (self.given, self.words, self.file, self.settings) = (given, words, file, settings)
        self.variables = variables
    }

    /// A command line that stays as it is.
    ///
    /// - Parameters:
    ///   - words: the words of the user.
    ///   - dropped: a word that the parser does not know.
    init(only words: [String], without dropped: String? = nil) {
        self.init(given: words, words: words.filter { $0 != dropped }, file: nil, settings: [])
    }

    /// Completes a command line.
    ///
    /// - Parameters:
    ///   - given: the words of the user, without the name of the program.
    ///   - environment: the variables.
    ///   - showsAll: whether ``settings`` has all options of the command even if nothing gives one of them.
    /// - Throws: `ValidationError` if the file cannot be read, or if the file or a variable is wrong.
    init(_ given: [String], _ environment: [String: String], showsAll: Bool = false) throws {
        guard let command = Invocation.configurable(UsageError.command(of: given)), !Invocation.isQuestion(given),
            !given.contains(ConfigurationOptions.onlyArguments)
        else {
            self.init(only: given, without: ConfigurationOptions.onlyArguments)
            return
        }
        let path = try Invocation.path(given, environment)
        // An empty variable is none, as in a unit of systemd that takes a variable back.
        let variables = environment.filter { $0.key.hasPrefix("PAGEFERRY_") && !$0.value.isEmpty }
        guard path != nil || !variables.isEmpty || showsAll else {
            self.init(only: given)
            return
        }
        let file = try path.map { try ConfigurationFile($0, for: Invocation.options()) }
        let layers = Layers(command._commandName, variables, file)
        let settings: [Setting] = try CommandOption.all(of: command).filter(\.isConfigurable).map { option in
            if let values = option.values(in: given) {
                return Setting(option: option, values: values, source: .commandLine)
            }
            return try layers.setting(of: option)
        }
        let added = settings.filter { $0.source != .commandLine && $0.source != .usual }
        let words = added.flatMap { $0.option.words(for: $0.values) }
        self.init(
            given: given,
            words: Array(given.prefix(1)) + words + Array(given.dropFirst()),
            file: path,
            settings: settings,
            variables: variables
        )
    }

    /// The commands that a file can configure.
    static var commands: [any ParsableCommand.Type] {
        Pageferry.configuration.subcommands.filter { configurable($0) != nil }
    }

    /// Whether a file and the environment can give options to a command line.
    static func isConfigurable(_ given: [String]) -> Bool {
        configurable(UsageError.command(of: given)) != nil && !given.contains(ConfigurationOptions.onlyArguments)
    }

    private static func configurable(_ command: (any ParsableCommand.Type)?) -> (any ParsableCommand.Type)? {
        guard let command, command.configuration.shouldDisplay, command != ConfigCommand.self else { return nil }
        return command
    }

    /// The options that a file can configure, by their commands.
    private static func options() throws -> [String: [CommandOption]] {
        try Dictionary(uniqueKeysWithValues: commands.map { ($0._commandName, try CommandOption.all(of: $0)) })
    }

    /// Whether the words ask for help or the version, which a wrong file must not prevent.
    private static func isQuestion(_ words: [String]) -> Bool {
        let questions = ["--help", "-h", "--help-hidden", "--version", "--experimental-dump-help"]
        return words.prefix { $0 != "--" }.contains {
            questions.contains($0) || $0.hasPrefix("--generate-completion-script")
        }
    }

    /// The file to read: the one that is named, or else the usual one if it is there.
    static func path(_ words: [String], _ environment: [String: String]) throws -> String? {
        let option = CommandOption(name: "config", kind: .value, isShown: true, isRequired: false, usual: nil)
        let variable = environment[ConfigurationOptions.variable].flatMap { $0.isEmpty ? nil : $0 }
        if let named = option.values(in: words)?.last ?? variable {
            guard !named.isEmpty else { throw ValidationError("--config takes the path of a file, or none") }
            return named == ConfigurationOptions.none ? nil : named
        }
        let usual = ConfigurationOptions.usualFile
        return FileManager.default.fileExists(atPath: usual) ? usual : nil
    }
}

extension Invocation {
    /// The command line of this process, which the parser has read last.
    private static let own = Mutex(Invocation(only: []))

    static var current: Invocation {
        get { own.withLock(\.self) }
        set { own.withLock { $0 = newValue } }
    }

    /// The setting of an option; nil if the command has no such option, or if no source was read.
    func setting(_ name: String) -> Setting? { settings.first { $0.option.name == name } }

    /// Returns the end of an error message: where the values of the options come from that it names.
    func origins(of message: String) -> String {
        let named = settings.filter { setting in
            setting.option.spellings.contains { spelling in
                message.ranges(of: spelling).contains { range in
                    let next = message[range.upperBound...].first
                    return next.map { !$0.isLetter && !$0.isNumber && $0 != "-" } ?? true
                }
            }
        }
        return named.compactMap { setting in
            switch setting.source {
            case .commandLine, .usual: nil
            case .environment, .file: "; --\(setting.option.name) is set by \(setting.source)"
            }
        }.joined()
    }
}

extension Invocation.Source: CustomStringConvertible {
    var description: String {
        switch self {
        case .commandLine: "the command line"
        case .environment(let variable): "the environment, \(variable)"
        case .file(let path, let line, let key): "\(path):\(line), \(key)"
        case .usual: "default"
        }
    }
}

/// The environment and the file, as one reader of swift-configuration, whose first layer with a value counts.
private struct Layers {
    private static let environmentLayers = 2

    private let command: String
    private let variables: [String: String]
    private let file: ConfigurationFile?
    private let reader: ConfigReader
    private let log = AccessLog()

    /// Remembers which layers the last access has asked.
    private final class AccessLog: AccessReporter {
        private let results = Mutex<[AccessEvent.ProviderResult]>([])

        func report(_ event: AccessEvent) { results.withLock { $0 = event.providerResults } }

        /// The layer that has given the last value, and the name of the value there.
        ///
        /// No layer behind it was asked.
        var last: (layer: Int, name: String)? {
            results.withLock { results in
                guard case .success(let found)? = results.last?.result else { return nil }
                return (results.count - 1, found.encodedKey)
            }
        }
    }

    init(_ command: String, _ variables: [String: String], _ file: ConfigurationFile?) {
        let environment = EnvironmentVariablesProvider(environmentVariables: variables)
        let sections = file?.sections ?? [:]
        var values: [AbsoluteConfigKey: ConfigValue] = [:]
        for (section, entries) in sections {
            for (key, entry) in entries {
                // Each value is a list here, so that an option with one value and one with several are read alike.
                values[AbsoluteConfigKey([section, key])] = ConfigValue(.stringArray(entry.values), isSecret: false)
            }
        }
        let entries = InMemoryProvider(name: file?.path, values: values)
        self.command = command
        self.variables = variables
        self.file = file
        reader = ConfigReader(
            providers: [
                environment.prefixKeys(with: ["pageferry", command]),
                environment.prefixKeys(with: ["pageferry"]),
                entries.prefixKeys(with: [command]),
                entries.prefixKeys(with: [ConfigurationFile.all]),
            ],
            accessReporter: log
        )
    }

    func setting(of option: CommandOption) throws -> Invocation.Setting {
        guard let values = reader.stringArray(forKey: ConfigKey([option.name])), let (layer, name) = log.last else {
            return Invocation.Setting(option: option, values: [], source: .usual)
        }
        guard layer < Layers.environmentLayers else {
            let section = layer == Layers.environmentLayers ? command : ConfigurationFile.all
            return Invocation.Setting(
                option: option,
                values: values,
                source: .file(
                    path: file?.path ?? "",
                    line: file?.sections[section]?[option.name]?.line ?? 0,
                    key: "\(section).\(option.name)"
                )
            )
        }
        let source = Invocation.Source.environment(variable: name)
        switch option.kind {
        case .list: return Invocation.Setting(option: option, values: values, source: source)
        case .flag, .invertible:
            let text = values.joined(separator: ",")
            guard let value = ["true": "true", "1": "true", "false": "false", "0": "false"][text] else {
                throw ValidationError("the variable \(name) takes true or false, not '\(text)'")
            }
            return Invocation.Setting(option: option, values: [value], source: source)
        case .value, .optionalValue:
            // A value may contain commas.
            let text = variables[name] ?? values.joined(separator: ",")
            return Invocation.Setting(option: option, values: [text], source: source)
        }
    }
}

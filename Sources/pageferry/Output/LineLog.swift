import FaultHandler
import Foundation
import Logging
import Synchronization

/// Logs each event as one line on standard error, such as `pageferry destination: what happened`.
///
/// If one place in the code logs too many lines, the further ones are only counted, since a peer may cause them. A
/// warning or an error that is the same as the one before is counted too. Two of them are the same if their metadata
/// `lasting` is, or without such metadata, if their text is.
///
/// All logs of this process have one level, which can change while it runs.
struct LineLog: LogHandler {
    let command: String
    var metadata = Logger.Metadata()
    private var ownLevel: Logger.Level?

    var logLevel: Logger.Level {
        get { ownLevel ?? LineLog.level }
        set { ownLevel = newValue }
    }

    init(command: String) {
        self.command = command
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let (level, command) = (event.level, command)
        let about = metadata.merging(event.metadata ?? [:]) { $1 }
        let place = RepeatedLines.Place(file: event.file, line: event.line)
        let text = LogFormat.text(level, of: command, "\(event.message)")
        let lasting = level >= .warning ? event.metadata?["lasting"].map { "\($0)" } ?? text : nil
        let isAllowed = RepeatedLines.shared.allows(
            lasting,
            at: place,
            like: { LineLog.line(level, of: command, "\($0) more like this: \(event.message)", about: about) }
        )
        guard isAllowed else { return LogRing.shared.noteDrop() }
        LogRing.shared.add(level, "\(event.message)")
        LineLog.write(LineLog.line(level, of: command, "\(event.message)", about: about))
    }

    // MARK: The level

    private struct State {
        var level = Logger.Level.notice
        /// What the handler of this worker has set; nil in every other process.
        var followed: SharedLogLevel?
    }

    private static let state = Mutex(State())

    /// The lowest level that is logged.
    static var level: Logger.Level { state.withLock { $0.followed?.level ?? $0.level } }

    /// Sets the lowest level that is logged.
    static func setLevel(_ level: Logger.Level) { state.withLock { $0.level = level } }

    /// Takes the level that the handler of this worker sets.
    static func follow(_ level: SharedLogLevel) { state.withLock { $0.followed = level } }

    // MARK: The form

    /// Sets whether lines begin with their time, in this process and in those that it starts.
    static func setTimes(_ areShown: Bool) {
        setenv(timesVariable, areShown ? "1" : "0", 1)
    }

    /// Sets the form of the lines, in this process and in those that it starts.
    static func setFormat(_ format: LogFormat) {
        setenv(formatVariable, format.rawValue, 1)
    }

    private static let timesVariable = "PAGEFERRY_LOG_TIMES"
    private static let formatVariable = "PAGEFERRY_LOG_FORMAT"

    /// Whether lines begin with their time; by default not on a terminal, where lines are read as they appear.
    private static let showsTimes =
        ProcessInfo.processInfo.environment[timesVariable].map { ["1", "true"].contains($0) }
        ?? (isatty(STDERR_FILENO) == 0)

    /// The form of the lines.
    static let format = ProcessInfo.processInfo.environment[formatVariable].flatMap(LogFormat.init) ?? .text

    /// Makes the line of an event.
    static func line(
        _ level: Logger.Level,
        of command: String,
        _ message: String,
        about metadata: Logger.Metadata = [:]
    ) -> String {
        format.line(level, of: command, message, about: metadata, showsTime: showsTimes)
    }

    /// Writes a line, or drops and counts it if standard error is not read.
    static func write(_ line: String) {
        Terminal.log(line) { count in
            let what = "\(count) log lines were dropped: standard error was not read"
            return format == .text ? "pageferry: \(what)" : self.line(.warning, of: "log", what)
        }
    }

    /// Whether this process logs, and so writes its last error to the log.
    static let isInUse = Atomic<Bool>(false)

    /// Makes the logger of a command.
    static func logger(_ command: String) -> Logger {
        isInUse.store(true, ordering: .relaxed)
        return Logger(label: "pageferry") { _ in LineLog(command: command) }
    }
}

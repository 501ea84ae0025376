import Foundation
import Logging

/// Logs each event as one line on standard error, such as `pageferry destination: what happened`.
///
/// If one place in the code logs too many lines, the further ones are only counted, since a peer may cause them. A
/// warning or an error that is the same as the one before is counted too. Two of them are the same if their metadata
/// `lasting` is, or without such metadata, if their text is.
struct LineLog: LogHandler {
    let command: String
    var logLevel = Logger.Level.notice
    var metadata = Logger.Metadata()

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let beginning = "pageferry \(command): \(event.level == .notice ? "" : "\(event.level): ")"
        let place = RepeatedLines.Place(file: event.file, line: event.line)
        let line = "\(beginning)\(event.message)"
        let lasting = event.level >= .warning ? event.metadata?["lasting"].map { "\($0)" } ?? line : nil
        guard
            RepeatedLines.shared.allows(
                lasting,
                at: place,
                like: { "\(beginning)\($0) more like this: \(event.message)" }
            )
        else { return LogRing.shared.noteDrop() }
        LogRing.shared.add(event.level, "\(event.message)")
        LineLog.say(line)
    }

    /// Sets whether lines begin with their time, in this process and in those that it starts.
    static func setTimes(_ areShown: Bool) {
        setenv(timesVariable, areShown ? "1" : "0", 1)
    }

    private static let timesVariable = "PAGEFERRY_LOG_TIMES"

    /// Whether lines begin with their time; by default not on a terminal, where lines are read as they appear.
    private static let showsTimes =
        ProcessInfo.processInfo.environment[timesVariable].map { $0 == "1" } ?? (isatty(STDERR_FILENO) == 0)

    /// Writes a line, or drops and counts it if standard error is not read; after its time in UTC if lines begin with their time.
    static func say(_ line: String) {
        guard showsTimes else { return Terminal.log(line) }
        Terminal.log("\(Date.now.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))) \(line)")
    }

    /// Makes the logger of a command.
    static func logger(_ command: String, _ level: Logger.Level) -> Logger {
        Logger(label: "pageferry") { _ in LineLog(command: command, logLevel: level) }
    }
}

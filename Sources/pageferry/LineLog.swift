import Foundation
import Logging

/// Logs to standard error, a line each: `pageferry destination: what happened`.
///
/// A place of the code that logs too often is counted after a few lines, since a peer may bring that about.
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
        guard RepeatedLines.shared.allows(place, like: { "\(beginning)\($0) more like this: \(event.message)" }) else {
            return
        }
        Terminal.say("\(beginning)\(event.message)")
    }

    /// A logger of a command.
    static func logger(_ command: String, _ level: Logger.Level) -> Logger {
        Logger(label: "pageferry") { _ in LineLog(command: command, logLevel: level) }
    }
}

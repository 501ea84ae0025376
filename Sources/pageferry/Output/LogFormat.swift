import Foundation
import Logging
import Outside
import Telemetry

/// The form of the lines of the log.
enum LogFormat: String, Codable, CaseIterable, Sendable {
    /// A line for people, such as `pageferry attach: warning: what happened`.
    case text
    /// One JSON object on each line.
    case json

    /// Writes an event as one line that is safe to print.
    ///
    /// - Parameters:
    ///   - metadata: what the event is about; only the JSON form has it, since the message names it for people.
    ///   - showsTime: whether the text begins with the time in UTC; the JSON form always has it.
    func line(
        _ level: Logger.Level,
        of command: String,
        _ message: String,
        about metadata: Logger.Metadata = [:],
        showsTime: Bool
    ) -> String {
        let time = Date.now.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
        switch self {
        case .text:
            let text = Terminal.painted(PrintableText.line(LogFormat.text(level, of: command, message)))
            return showsTime ? "\(time) \(text)" : text
        case .json:
            var members = metadata.mapValues { "\($0)" }
            // The words by which equal lines are found, which the message has too.
            members["lasting"] = nil
            // Escapes may make a text six times as long.
            for most in [2048, 1024, 512, 256] {
                var members = members.mapValues { PrintableText.cut($0, to: most / 8) }
                members["time"] = time
                members["level"] = "\(level)"
                members["command"] = command
                members["message"] = PrintableText.cut(message, to: most)
                // A dictionary of texts always has a JSON form.
                let line = PrintableText.json((try? JSONLine.encode(members)) ?? "{}")
                if line.utf8.count < LogFormat.longestLine { return line }
            }
            return "{}"
        }
    }

    /// The text of an event, without its time.
    static func text(_ level: Logger.Level, of command: String, _ message: String) -> String {
        "pageferry \(command): \(level == .notice ? "" : "\(level): ")\(message)"
    }

    /// The most bytes of a line of JSON, with its end: such a line is written as a whole or not at all (pipe(7)).
    private static let longestLine = 4096
}

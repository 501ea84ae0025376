import Foundation
import Logging

/// Logs to standard error, a line each: `pageferry destination: what happened`.
struct LineLog: LogHandler {
    let command: String
    var logLevel = Logger.Level.notice
    var metadata = Logger.Metadata()

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        LineLog.print("pageferry \(command): \(event.level == .notice ? "" : "\(event.level): ")\(event.message)")
    }

    /// A logger of a command.
    static func logger(_ command: String, _ level: Logger.Level) -> Logger {
        Logger(label: "pageferry") { _ in LineLog(command: command, logLevel: level) }
    }

    /// Writes a line to standard error.
    static func print(_ line: String) {
        write("\(line)\n")
    }

    /// Writes to standard error. Where nobody reads that any more, or its disk is full, it is lost: what is served goes on.
    static func write(_ text: String) {
        try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
    }

    /// Writes the line on standard output that whoever started this waits for. Not by `print`, which keeps lines back when
    /// nobody sees them on a terminal.
    static func ready(_ what: String) throws {
        try FileHandle.standardOutput.write(contentsOf: Data("ready \(what)\n".utf8))
    }
}

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

    /// Writes a line to standard error.
    static func print(_ line: String) {
        FileHandle.standardError.write(Data("\(line)\n".utf8))
    }
}

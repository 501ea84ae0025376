import Foundation
package import Logging
import Synchronization

/// The logged lines, which a failed test shows and for which a test can wait.
package final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    private let arrival = NSCondition()

    /// Makes an empty log.
    package init() {}

    /// A logger that adds its lines here.
    package var logger: Logger { Logger(label: "test") { _ in Handler(lines: self) } }

    /// All lines so far.
    package var all: [String] { lines.withLock(\.self) }

    /// Adds a line.
    package func add(_ line: String) {
        arrival.lock()
        defer { arrival.unlock() }
        lines.withLock { $0.append(line) }
        arrival.broadcast()
    }

    /// The number of lines that contain these words.
    package func count(of words: String) -> Int {
        all.count { $0.contains(words) }
    }

    /// Waits for a line that contains these words, after `count` other such lines; nil after 30 seconds.
    package func first(containing words: String, beyond count: Int = 0) -> String? {
        let deadline = Date(timeIntervalSinceNow: 30)
        arrival.lock()
        defer { arrival.unlock() }
        while true {
            if let line = all.filter({ $0.contains(words) }).dropFirst(count).first { return line }
            guard arrival.wait(until: deadline) else { return nil }
        }
    }

    private struct Handler: LogHandler {
        let lines: LogLines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.trace

        init(lines: LogLines) { self.lines = lines }

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            lines.add("\(event.message)")
        }
    }
}

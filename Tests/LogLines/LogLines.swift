import Foundation
public import Logging
import Synchronization

/// The lines that were logged: what a failed test shows, and what a test may wait for.
public final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    private let arrival = NSCondition()

    /// None yet.
    public init() {}

    /// What logs here.
    public var logger: Logger { Logger(label: "test") { _ in Handler(lines: self) } }

    /// All lines so far.
    public var all: [String] { lines.withLock(\.self) }

    /// Adds a line.
    public func add(_ line: String) {
        arrival.lock()
        defer { arrival.unlock() }
        lines.withLock { $0.append(line) }
        arrival.broadcast()
    }

    /// How many lines hold these words.
    public func count(of words: String) -> Int {
        all.count { $0.contains(words) }
    }

    /// Waits for a line that holds these words, after so many others that do; nil after 30 seconds.
    public func first(containing words: String, beyond count: Int = 0) -> String? {
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

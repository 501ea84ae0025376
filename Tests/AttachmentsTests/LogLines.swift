import LinuxSystem
import Logging
import Synchronization

/// The lines that were logged; a test waits for one.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    private let flag: EventDescriptor

    init() throws {
        flag = try EventDescriptor()
    }

    var logger: Logger { Logger(label: "test") { _ in Handler(lines: self) } }

    var all: [String] { lines.withLock(\.self) }

    func add(_ line: String) {
        lines.withLock { $0.append(line) }
        flag.raise()
    }

    func count(of words: String) -> Int {
        all.count { $0.contains(words) }
    }

    /// Waits for a line that holds these words, after so many others that do; nil after 30 seconds.
    func first(containing words: String, beyond count: Int = 0) -> String? {
        let deadline = MonotonicClock.now() + 30_000_000_000
        while MonotonicClock.now() < deadline {
            if let line = all.filter({ $0.contains(words) }).dropFirst(count).first { return line }
            if flag.wait(seconds: 1) { flag.clear() }
        }
        return nil
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

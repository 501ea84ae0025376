import Foundation
import Logging
import Outside
import Synchronization
import Telemetry
import Web

/// The latest lines of the log, which the live page shows, and the number of all lines.
final class LogRing: Sendable {
    static let shared = LogRing()

    /// The lines that are kept.
    private static let length = 200

    private let state = Mutex(WebServer.Log())

    /// Keeps a line.
    func add(_ level: Logger.Level, _ text: String) {
        let event = LiveState.Event(
            unixMilliseconds: UInt64(max(0, Date.now.timeIntervalSince1970 * 1000)),
            level: level.rawValue,
            text: PrintableText.line(text)
        )
        state.withLock { state in
            if state.events.count == LogRing.length { state.events.removeFirst() }
            state.events.append(event)
            state.count += 1
        }
    }

    /// Counts a line that was only counted, or that standard error did not take.
    func noteDrop() { state.withLock { $0.dropped += 1 } }

    /// The lines and their numbers.
    var log: WebServer.Log { state.withLock { $0 } }
}

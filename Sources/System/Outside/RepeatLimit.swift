/// A rate limit for log lines of one kind, so that a peer cannot fill the disk by causing them.
///
/// The limit allows a burst of lines, then a few per second, and the same line only once per minute. Suppressed lines
/// are counted.
package struct RepeatLimit: Hashable, Sendable {
    /// The most lines in a burst.
    package static let burst: UInt64 = 20
    /// The lines per second after a burst.
    package static let perSecond: UInt64 = 5
    /// Nanoseconds in which the same line is written at most once.
    package static let sameLinePause: UInt64 = 60 * second
    private static let second: UInt64 = 1_000_000_000

    /// When the next line would be written if all lines came at the steady rate, in nanoseconds.
    private var due: UInt64 = 0
    /// The number of suppressed lines.
    private var kept = 0
    /// The last line that was written, and when.
    private var last: Line?

    private struct Line: Hashable {
        let text: String
        let time: UInt64
    }

    /// Makes a limit that has allowed no line yet.
    package init() {}

    /// Whether a line may be written now; if not, the line is counted.
    ///
    /// - Parameters:
    ///   - text: the line, if it describes a lasting state; nil if each line is a separate event.
    ///   - now: the time in nanoseconds, of a clock that never goes back.
    package mutating func allows(_ text: String? = nil, at now: UInt64) -> Bool {
        guard !isSame(text, at: now) else {
            kept += 1
            return false
        }
        let pause = RepeatLimit.second / RepeatLimit.perSecond
        let begin = max(due, now)
        guard begin - now <= pause * (RepeatLimit.burst - 1) else {
            kept += 1
            return false
        }
        due = begin + pause
        last = text.map { Line(text: $0, time: now) }
        return true
    }

    /// Whether the text equals the last written line, and that line is younger than ``sameLinePause``.
    package func isSame(_ text: String?, at now: UInt64) -> Bool {
        guard let text, let last else { return false }
        return last.text == text && now - min(now, last.time) < RepeatLimit.sameLinePause
    }

    /// Nanoseconds until the number of suppressed lines should be written, if a line is suppressed now.
    ///
    /// One second, or the time until the same line may be written again.
    package func summaryDelay(for text: String?, at now: UInt64) -> UInt64 {
        guard isSame(text, at: now), let last else { return RepeatLimit.second }
        return RepeatLimit.sameLinePause - (now - min(now, last.time))
    }

    /// Returns the number of lines suppressed since the last call, and resets it.
    package mutating func takeKept() -> Int {
        defer { kept = 0 }
        return kept
    }
}

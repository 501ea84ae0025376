import Foundation
import LinuxSystem
import Outside
import Synchronization

/// Suppresses log lines that one place in the code repeats, and logs how many they were.
///
/// The count is logged after a second, or a minute after the line that was written if further lines are the same.
final class RepeatedLines: Sendable {
    static let shared = RepeatedLines()

    /// A place in the code that logs.
    ///
    /// The code has a fixed number of places, which bounds the table of them.
    struct Place: Hashable {
        let file: String
        let line: UInt
    }

    private struct Repeated {
        var limit = RepeatLimit()
        /// Makes the line that reports the count; nil if no line is suppressed.
        var summary: ((_ count: Int) -> String)?
        /// When the count is logged, in nanoseconds of `MonotonicClock`; the end of time if no line is suppressed.
        var due = UInt64.max
    }

    private let places = Mutex<[Place: Repeated]>([:])

    private init() {
        atexit { RepeatedLines.shared.tellAll() }
    }

    /// Whether a line may be written now; if not, the line is counted.
    ///
    /// - Parameters:
    ///   - text: the line, if it describes a lasting state; nil if each line is a separate event.
    ///   - place: the place in the code that logs the line.
    ///   - summary: makes the line that reports the count.
    func allows(_ text: String?, at place: Place, like summary: @escaping @Sendable (_ count: Int) -> String) -> Bool {
        let outcome = places.withLock { places -> (isAllowed: Bool, delay: UInt64?) in
            var repeated = places[place] ?? Repeated()
            defer { places[place] = repeated }
            let now = MonotonicClock.now()
            let delay = repeated.limit.summaryDelay(for: text, at: now)
            if repeated.limit.allows(text, at: now) { return (true, nil) }
            // The operator `??` would wrap the closure once more for each line, and releasing the wrappers recurses.
            if repeated.summary == nil { repeated.summary = summary }
            // A line that is suppressed for a minute must not hold up the count of others.
            guard now + delay < repeated.due else { return (false, nil) }
            repeated.due = now + delay
            return (false, delay)
        }
        if let delay = outcome.delay {
            DispatchQueue.global().asyncAfter(deadline: .now() + .nanoseconds(Int(delay))) { self.tell(place) }
        }
        return outcome.isAllowed
    }

    private func tell(_ place: Place) {
        let line = places.withLock { places in
            let count = places[place]?.limit.takeKept() ?? 0
            places[place]?.due = .max
            return places[place]?.summary.take()?(count)
        }
        if let line { LineLog.write(line) }
    }

    private func tellAll() {
        for place in places.withLock({ Array($0.keys) }) { tell(place) }
    }
}

import Foundation
import LinuxSystem
import Outside
import Synchronization

/// Counts what one place of the code logs again and again, and tells the count a second later.
final class RepeatedLines: Sendable {
    static let shared = RepeatedLines()

    /// Where in the code a line comes from. There are as many as the code has.
    struct Place: Hashable {
        let file: String
        let line: UInt
    }

    private struct Repeated {
        var limit = RepeatLimit()
        /// Says how many were counted; nil where none is.
        var summary: ((_ count: Int) -> String)?
    }

    private let places = Mutex<[Place: Repeated]>([:])

    private init() {
        atexit { RepeatedLines.shared.tellAll() }
    }

    /// Whether a line may be written now. One that may not is counted.
    ///
    /// - Parameter summary: says how many lines like this were counted.
    func allows(_ place: Place, like summary: @escaping @Sendable (_ count: Int) -> String) -> Bool {
        let (isAllowed, isFirst) = places.withLock { places in
            var repeated = places[place] ?? Repeated()
            defer { places[place] = repeated }
            if repeated.limit.allows(at: MonotonicClock.now()) { return (true, false) }
            defer { repeated.summary = repeated.summary ?? summary }
            return (false, repeated.summary == nil)
        }
        if isFirst { DispatchQueue.global().asyncAfter(deadline: .now() + 1) { self.tell(place) } }
        return isAllowed
    }

    private func tell(_ place: Place) {
        let line = places.withLock { places in
            let count = places[place]?.limit.takeKept() ?? 0
            return places[place]?.summary.take()?(count)
        }
        if let line { Terminal.say(line) }
    }

    private func tellAll() {
        for place in places.withLock({ Array($0.keys) }) { tell(place) }
    }
}

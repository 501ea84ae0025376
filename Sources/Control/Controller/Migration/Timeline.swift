import Foundation
import Identity
import LinuxSystem

/// The moments of one migration on one side, by that side's clock.
struct Timeline<Moment: Hashable & Sendable>: Sendable {
    private var moments: [Moment: UInt64] = [:]
    /// The token of the RUN whose moment was recorded last.
    private var token: RunToken?

    /// Records when a moment was, unless it is recorded already.
    ///
    /// The first time counts, since messages are repeated on a new link.
    ///
    /// - Parameters:
    ///   - moment: the moment.
    ///   - time: nanoseconds of ``MonotonicClock``; now by default.
    mutating func note(_ moment: Moment, at time: UInt64 = MonotonicClock.now()) {
        if moments[moment] == nil { moments[moment] = time }
    }

    /// Records when RUN was first sent or received with a token; another token is another attempt to start.
    ///
    /// - Parameters:
    ///   - moment: the moment of RUN.
    ///   - token: the token.
    ///   - end: the moment of a successful start, after which no attempt counts any more.
    mutating func note(_ moment: Moment, of token: RunToken, until end: Moment) {
        if self.token != token, moments[end] == nil { moments[moment] = nil }
        self.token = token
        note(moment)
    }

    /// The time of a moment, in nanoseconds of ``MonotonicClock``; nil if it is not recorded.
    subscript(moment: Moment) -> UInt64? { moments[moment] }

    /// Microseconds from one moment to another; 0 if one of them is not recorded or the end precedes the start.
    func microseconds(from start: Moment, to end: Moment) -> Double {
        guard let start = moments[start], let end = moments[end] else { return 0 }
        return Timeline.microseconds(from: start, to: end)
    }

    /// Microseconds between two times; 0 if the end precedes the start.
    ///
    /// A peer that repeats its messages can bring about that order.
    static func microseconds(from start: UInt64, to end: UInt64) -> Double {
        end > start ? Double(end - start) / 1000 : 0
    }
}

extension Double {
    /// The text of a duration in microseconds for a log line: `12.3 ms` or `4.5 s`.
    var asTime: String {
        self < 1_000_000 ? String(format: "%.1f ms", self / 1000) : String(format: "%.1f s", self / 1_000_000)
    }
}

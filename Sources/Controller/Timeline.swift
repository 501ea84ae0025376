import LinuxSystem

/// Moments of one migration on one side, by that side's clock.
struct Timeline<Moment: Hashable & Sendable>: Sendable {
    private var moments: [Moment: UInt64] = [:]

    /// Notes that a moment is now, or when it was. The latest counts.
    mutating func note(_ moment: Moment, at time: UInt64 = MonotonicClock.now()) {
        moments[moment] = time
    }

    /// When a moment was, in nanoseconds of ``MonotonicClock``.
    subscript(moment: Moment) -> UInt64? { moments[moment] }

    /// Microseconds from one moment to another; 0 where one of them was not, or they are the wrong way round.
    func microseconds(from start: Moment, to end: Moment) -> Double {
        guard let start = moments[start], let end = moments[end] else { return 0 }
        return Timeline.microseconds(from: start, to: end)
    }

    /// Microseconds from one time to another; 0 where they are the wrong way round, which a peer that sends its messages
    /// again can bring about.
    static func microseconds(from start: UInt64, to end: UInt64) -> Double {
        end > start ? Double(end - start) / 1000 : 0
    }
}

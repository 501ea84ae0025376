package import Telemetry

/// The numbers of durations up to bounds that are powers of two of a microsecond.
package struct DurationCounts: Hashable, Sendable {
    /// The exponents of the first and the last bound: 2 µs and 67 s.
    private static let exponents = 1...26
    /// The bounds in seconds, without the last one, which is infinite.
    package static let bounds = exponents.map { Double(1 << $0) / 1e6 }

    /// The number of durations below each bound, and last their number.
    package let cumulative: [UInt64]
    /// The sum of all durations, in seconds.
    package let seconds: Double

    /// Makes the counts of recorded durations.
    ///
    /// - Parameters:
    ///   - recorders: the recorders.
    ///   - more: nanoseconds to add to each duration.
    package init(_ recorders: [LatencyRecorder], adding more: UInt64 = 0) {
        let counts = LatencyRecorder.powersOfTwo(of: recorders, adding: more)
        let sum = LatencyRecorder.sum(of: recorders)
        var cumulative: [UInt64] = []
        var total: UInt64 = 0
        // The count at index n is that of the durations below 2^(n+1) µs.
        for (index, count) in counts.enumerated() {
            total += count
            if DurationCounts.exponents.contains(index + 1) { cumulative.append(total) }
        }
        self.cumulative = cumulative + [total]
        seconds = Double(sum.nanoseconds + sum.count * more) / 1e9
    }
}

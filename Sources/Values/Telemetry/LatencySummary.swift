package import Histogram

/// The summary of a distribution of durations, as it appears in reports.
package struct LatencySummary: Codable, Hashable, Sendable {
    /// The number of durations.
    package var count: UInt64 = 0
    /// The mean, in microseconds.
    package var mean = 0.0
    /// The median, in microseconds.
    package var p50 = 0.0
    /// The 90th percentile, in microseconds.
    package var p90 = 0.0
    /// The 99th percentile, in microseconds.
    package var p99 = 0.0
    /// The 99.9th percentile, in microseconds.
    package var p999 = 0.0
    /// The longest duration, in microseconds.
    package var max = 0.0
    /// The sum, in microseconds.
    package var total = 0.0

    /// Makes the summary of no durations.
    package init() {}

    /// Summarizes a histogram of nanoseconds.
    package init(_ histogram: Histogram<UInt64>) {
        guard histogram.totalCount > 0 else { return }
        func microseconds(_ percentile: Double) -> Double {
            Double(histogram.valueAtPercentile(percentile)) / 1000
        }
        count = histogram.totalCount
        mean = histogram.mean / 1000
        p50 = microseconds(50)
        p90 = microseconds(90)
        p99 = microseconds(99)
        p999 = microseconds(99.9)
        max = Double(histogram.max) / 1000
        total = mean * Double(count)
    }

    /// Summarizes the durations of several recorders together.
    ///
    /// - Parameters:
    ///   - recorders: the recorders.
    ///   - more: nanoseconds to add to each duration.
    package init(_ recorders: [LatencyRecorder], adding more: UInt64 = 0) {
        self.init(LatencyRecorder.histogram(of: recorders, adding: more))
    }
}

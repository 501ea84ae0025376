public import Histogram

/// A distribution of durations in the form the report prints it: microseconds.
public struct LatencySummary: Codable, Hashable, Sendable {
    /// Durations counted.
    public var count: UInt64 = 0
    /// Their mean, in microseconds.
    public var mean = 0.0
    /// The median, in microseconds.
    public var p50 = 0.0
    /// Nine of ten are no longer than this, in microseconds.
    public var p90 = 0.0
    /// 99 of 100 are no longer than this, in microseconds.
    public var p99 = 0.0
    /// 999 of 1000 are no longer than this, in microseconds.
    public var p999 = 0.0
    /// The longest, in microseconds.
    public var max = 0.0
    /// Their sum, in microseconds.
    public var total = 0.0

    /// A summary of nothing.
    public init() {}

    /// Sums up a histogram of nanoseconds.
    public init(_ histogram: Histogram<UInt64>) {
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

    /// Sums up what several recorders have counted.
    public init(_ recorders: [LatencyRecorder]) {
        self.init(LatencyRecorder.histogram(of: recorders))
    }
}

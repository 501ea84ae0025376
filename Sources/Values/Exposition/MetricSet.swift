/// The samples of a process's metrics at one moment.
package struct MetricSet: Sendable {
    /// A sample of a metric.
    struct Sample: Sendable {
        enum Value: Sendable {
            case number(Double)
            case histogram(DurationCounts)
            /// Quantiles with their values in seconds, the number of durations, and their sum in seconds.
            case summary([(quantile: Double, seconds: Double)], count: UInt64, seconds: Double)
        }

        let labels: [String]
        let value: Value
    }

    private(set) var samples: [Metric: [Sample]] = [:]

    /// Makes a set without samples.
    package init() {}

    /// Adds a sample of a counter, a gauge or an info.
    ///
    /// - Parameters:
    ///   - metric: the metric.
    ///   - value: the number.
    ///   - labels: the values of the metric's labels, in their order.
    package mutating func add(_ metric: Metric, _ value: Double, _ labels: String...) {
        add(metric, value, labels)
    }

    /// Adds a sample of a counter, a gauge or an info.
    ///
    /// - Parameters:
    ///   - metric: the metric.
    ///   - value: the number.
    ///   - labels: the values of the metric's labels, in their order.
    package mutating func add(_ metric: Metric, _ value: Double, _ labels: [String]) {
        append(metric, Sample(labels: labels, value: .number(value)))
    }

    /// Adds a sample of a histogram.
    package mutating func add(_ metric: Metric, _ counts: DurationCounts, _ labels: String...) {
        append(metric, Sample(labels: labels, value: .histogram(counts)))
    }

    /// Adds a sample of a summary.
    ///
    /// - Parameters:
    ///   - metric: the metric.
    ///   - quantiles: quantiles from 0 to 1, each with its duration in seconds.
    ///   - count: the number of durations.
    ///   - seconds: the sum of the durations.
    ///   - labels: the values of the metric's labels, in their order.
    package mutating func add(
        _ metric: Metric,
        quantiles: [(quantile: Double, seconds: Double)],
        count: UInt64,
        seconds: Double,
        _ labels: [String]
    ) {
        append(metric, Sample(labels: labels, value: .summary(quantiles, count: count, seconds: seconds)))
    }

    private mutating func append(_ metric: Metric, _ sample: Sample) {
        precondition(sample.labels.count == metric.labels.count, "\(metric.name) has other labels")
        samples[metric, default: []].append(sample)
    }

    /// The metrics that have samples, in the order of ``Metric/all``.
    package var metrics: [Metric] { Metric.all.filter { samples[$0] != nil } }
}

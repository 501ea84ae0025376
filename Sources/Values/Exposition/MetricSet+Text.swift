/// Writing metrics as text.
extension MetricSet {
    /// The samples in a text format, as UTF-8.
    package func text(as format: ExpositionFormat) -> [UInt8] {
        var writer = ExpositionWriter(format)
        for metric in metrics { writer.write(metric, samples[metric] ?? []) }
        return writer.finish()
    }
}

/// Writes metrics line by line.
private struct ExpositionWriter {
    private let format: ExpositionFormat
    private var bytes: [UInt8] = []

    init(_ format: ExpositionFormat) {
        self.format = format
        bytes.reserveCapacity(1 << 16)
    }

    mutating func write(_ metric: Metric, _ samples: [MetricSet.Sample]) {
        // OpenMetrics names a counter or an info without the ending of its samples.
        let name = format == .openMetrics ? metric.name : metric.sampleName
        append("# HELP \(name) \(escapedHelp(metric.help))\n# TYPE \(name) \(type(of: metric.kind))\n")
        if format == .openMetrics, let unit = metric.unit { append("# UNIT \(name) \(unit)\n") }
        for sample in samples { write(metric, sample) }
    }

    private func type(of kind: Metric.Kind) -> String {
        // The older format has no type for an info.
        kind == .info && format == .prometheus ? "gauge" : kind.rawValue
    }

    private mutating func write(_ metric: Metric, _ sample: MetricSet.Sample) {
        let labels = zip(metric.labels, sample.labels).map { "\($0)=\"\(escapedLabel($1))\"" }.joined(separator: ",")
        switch sample.value {
        case .number(let value): line(metric.sampleName, labels, value)
        case .histogram(let counts):
            for (bound, count) in zip(DurationCounts.bounds + [.infinity], counts.cumulative) {
                line("\(metric.name)_bucket", joined(labels, "le=\"\(text(bound))\""), count)
            }
            line("\(metric.name)_sum", labels, counts.seconds)
            line("\(metric.name)_count", labels, counts.cumulative.last ?? 0)
        case .summary(let quantiles, let count, let seconds):
            for (quantile, value) in quantiles {
                line(metric.name, joined(labels, "quantile=\"\(text(quantile))\""), value)
            }
            line("\(metric.name)_sum", labels, seconds)
            line("\(metric.name)_count", labels, count)
        }
    }

    private func joined(_ labels: String, _ last: String) -> String { labels.isEmpty ? last : "\(labels),\(last)" }

    private mutating func line(_ name: String, _ labels: String, _ value: Double) {
        line(name, labels, text(value))
    }

    private mutating func line(_ name: String, _ labels: String, _ count: UInt64) {
        line(name, labels, String(count))
    }

    private mutating func line(_ name: String, _ labels: String, _ value: String) {
        append(labels.isEmpty ? "\(name) \(value)\n" : "\(name){\(labels)} \(value)\n")
    }

    private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    /// A number, without a fraction if it is whole and exact.
    private func text(_ number: Double) -> String {
        if number.isNaN { return "NaN" }
        if number.isInfinite { return number < 0 ? "-Inf" : "+Inf" }
        if let whole = Int64(exactly: number), whole.magnitude < 1 << 53 { return "\(whole)" }
        return "\(number)"
    }

    private func escapedHelp(_ text: String) -> String {
        let text = text.replacing("\\", with: "\\\\").replacing("\n", with: "\\n")
        return format == .openMetrics ? text.replacing("\"", with: "\\\"") : text
    }

    private func escapedLabel(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 == 0x5c || $0 == 0x22 || $0 == 0x0a }) else { return text }
        return text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }

    /// Ends the text and returns it.
    mutating func finish() -> [UInt8] {
        if format == .openMetrics { append("# EOF\n") }
        return bytes
    }
}

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
        switch sample.value {
        case .number(let value): line(metric.sampleName, metric, sample, text(value))
        case .histogram(let counts):
            for (bound, count) in zip(DurationCounts.bounds + [.infinity], counts.cumulative) {
                line("\(metric.name)_bucket", metric, sample, "\(count)", and: ("le", text(bound)))
            }
            line("\(metric.name)_sum", metric, sample, text(counts.seconds))
            line("\(metric.name)_count", metric, sample, "\(counts.cumulative.last ?? 0)")
        case .summary(let quantiles, let count, let seconds):
            for (quantile, value) in quantiles {
                line(metric.name, metric, sample, text(value), and: ("quantile", text(quantile)))
            }
            line("\(metric.name)_sum", metric, sample, text(seconds))
            line("\(metric.name)_count", metric, sample, "\(count)")
        }
    }

    /// Writes a sample.
    ///
    /// Everything is written in place, since a page may have tens of thousands of samples.
    private mutating func line(
        _ name: String,
        _ metric: Metric,
        _ sample: MetricSet.Sample,
        _ value: String,
        and last: (name: String, value: String)? = nil
    ) {
        append(name)
        var mark = "{"
        for (label, value) in zip(metric.labels, sample.labels) {
            append(mark)
            append(label)
            append("=\"")
            appendLabel(value)
            append("\"")
            mark = ","
        }
        if let last {
            append("\(mark)\(last.name)=\"\(last.value)\"")
            mark = ","
        }
        append(mark == "," ? "} " : " ")
        append(value)
        append("\n")
    }

    private mutating func appendLabel(_ text: String) {
        for byte in text.utf8 {
            switch byte {
            case 0x5c, 0x22: bytes.append(0x5c)
            case 0x0a:
                append("\\n")
                continue
            default: break
            }
            bytes.append(byte)
        }
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

    /// Ends the text and returns it.
    mutating func finish() -> [UInt8] {
        if format == .openMetrics { append("# EOF\n") }
        return bytes
    }
}

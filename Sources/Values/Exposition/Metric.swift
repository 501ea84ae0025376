/// The definition of one metric: its name, kind, meaning and labels.
///
/// Names and units follow Prometheus: base units (seconds, bytes), and the unit at the end of the name.
package struct Metric: Hashable, Sendable {
    /// What the samples of a metric mean.
    package enum Kind: String, Sendable {
        /// A number that only grows while the process runs; its samples end in `_total`.
        case counter
        /// A number that grows and shrinks.
        case gauge
        /// The number of durations up to each bound, their sum and their number.
        case histogram
        /// Quantiles of durations, their sum and their number.
        case summary
        /// The number 1, with labels that say what something is; its sample ends in `_info`.
        case info
    }

    /// The name, without the ending that the samples of a counter or an info have.
    package let name: String
    /// What the samples mean.
    package let kind: Kind
    /// What is measured, in one sentence without its full stop.
    package let help: String
    /// The names of the labels, in the order in which samples give their values.
    package let labels: [String]

    /// Makes a definition.
    init(_ name: String, _ kind: Kind, _ help: String, labels: [String] = []) {
        self.name = name
        self.kind = kind
        self.help = help
        self.labels = labels
    }

    /// Whether two definitions have the same name; names are unique, and comparing all would take longer.
    package static func == (one: Metric, other: Metric) -> Bool { one.name == other.name }

    /// Hashes the name.
    package func hash(into hasher: inout Hasher) { hasher.combine(name) }

    /// The name of the samples, which the article lists; histograms and summaries have more endings.
    package var sampleName: String {
        switch kind {
        case .counter: "\(name)_total"
        case .info: "\(name)_info"
        case .gauge, .histogram, .summary: name
        }
    }

    /// The unit at the end of the name; nil if the metric has none.
    package var unit: String? { ["seconds", "bytes", "ratio"].first { name.hasSuffix("_\($0)") } }
}

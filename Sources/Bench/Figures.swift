package import Histogram
package import Telemetry

/// The figures of one round of a case, or the medians of several rounds.
package struct Figures: Codable, Hashable, Sendable {
    /// How long a thread waited for an absent page, in microseconds: the median.
    package var p50: Double?
    /// The 99th percentile of the waits that ``p50`` is the median of.
    package var p99: Double?
    /// The 99.9th percentile of the waits that ``p50`` is the median of.
    package var p999: Double?
    /// How long the measured work took, in seconds.
    package var seconds: Double?
    /// The rate at which memory moved, in MiB per second.
    package var mebibytesPerSecond: Double?
    /// Processor time that both ends used for each GiB, in seconds.
    package var cpuSecondsPerGiB: Double?
    /// Processor time that both ends used for each fault, without what the touching thread used, in microseconds.
    package var cpuMicrosecondsPerFault: Double?
    /// How long the workload did not run, in milliseconds.
    package var milliseconds: Double?
    /// Memory held, in MiB.
    package var mebibytes: Double?

    /// Creates figures of which none is measured.
    package init() {}

    mutating func take(_ recorders: [LatencyRecorder]) {
        let summary = LatencySummary(recorders)
        (p50, p99, p999) = (summary.p50, summary.p99, summary.p999)
    }

    /// Every figure, with its name.
    static let paths: [(name: String, path: any WritableKeyPath<Figures, Double?> & Sendable)] = [
        ("p50", \.p50), ("p99", \.p99), ("p999", \.p999), ("seconds", \.seconds), ("MiB/s", \.mebibytesPerSecond),
        ("CPU s/GiB", \.cpuSecondsPerGiB), ("CPU us/fault", \.cpuMicrosecondsPerFault),
        ("ms", \.milliseconds), ("MiB", \.mebibytes),
    ]

    /// The median of each figure.
    static func median(_ rounds: [Figures]) -> Figures {
        var median = Figures()
        for (_, path) in paths {
            let values = rounds.compactMap { $0[keyPath: path] }.sorted()
            if !values.isEmpty { median[keyPath: path] = values[values.count / 2] }
        }
        return median
    }

    /// Each figure divided by the same figure of another round.
    func divided(by other: Figures) -> Figures {
        var ratio = Figures()
        for (_, path) in Figures.paths {
            if let value = self[keyPath: path], let by = other[keyPath: path], by > 0 {
                ratio[keyPath: path] = value / by
            }
        }
        return ratio
    }

    enum CodingKeys: String, CodingKey {
        case p50 = "p50_us", p99 = "p99_us", p999 = "p999_us", seconds, mebibytesPerSecond = "mib_s"
        case cpuSecondsPerGiB = "cpu_s_per_gib", cpuMicrosecondsPerFault = "cpu_us_per_fault"
        case milliseconds = "ms", mebibytes = "mib"
    }
}

/// The rounds of a case: ours and the other side, measured one after the other in each pair.
typealias Rounds = [(ours: Figures, other: Figures)]

/// The result of one case: ours compared with another side, measured in alternating rounds.
package struct Comparison: Sendable {
    /// The case's name.
    package let name: String
    /// The name of the side that ours is compared with.
    package let against: String
    /// The median of ours.
    package let ours: Figures
    /// The median of the other side.
    package let other: Figures
    /// The median of each round's ratio, ours divided by the other side.
    package let ratio: Figures
    /// How long ours waited for absent pages in all rounds, in nanoseconds; nil if no waits were recorded.
    package let stalls: Histogram<UInt64>?

    /// Computes the medians of a case's rounds.
    ///
    /// - Parameters:
    ///   - name: the case's name.
    ///   - against: the name of the other side.
    ///   - rounds: ours and the other side, measured one after the other in each pair.
    ///   - recorders: the waits of ours for absent pages, in all rounds.
    package init(
        _ name: String,
        against: String,
        _ rounds: [(ours: Figures, other: Figures)],
        stalls recorders: [LatencyRecorder] = []
    ) {
        self.name = name
        self.against = against
        ours = .median(rounds.map(\.ours))
        other = .median(rounds.map(\.other))
        ratio = .median(rounds.map { $0.ours.divided(by: $0.other) })
        stalls = recorders.isEmpty ? nil : LatencyRecorder.histogram(of: recorders)
    }
}

extension Comparison: Encodable {
    enum CodingKeys: String, CodingKey {
        case name, against, ours, other, ratio, histogram
    }

    /// Encodes everything, with the waits of ours by eighths of an octave, or null if none were recorded.
    ///
    /// - Throws: the encoder's error.
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(against, forKey: .against)
        try container.encode(ours, forKey: .ours)
        try container.encode(other, forKey: .other)
        try container.encode(ratio, forKey: .ratio)
        try container.encode(
            stalls.map { Report.Distribution(stall: LatencyRecorder.eighths(of: $0), service: []) },
            forKey: .histogram
        )
    }
}

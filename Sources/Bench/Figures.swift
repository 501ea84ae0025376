public import Histogram
public import Telemetry

/// What one round of a case, or the median of several, has measured.
public struct Figures: Codable, Hashable, Sendable {
    /// What a thread waited for an absent page, in microseconds: median, 99 and 99.9 of 100.
    public var p50: Double?
    /// See ``p50``.
    public var p99: Double?
    /// See ``p50``.
    public var p999: Double?
    /// How long all of it took, in seconds.
    public var seconds: Double?
    /// Memory moved in that time.
    public var mebibytesPerSecond: Double?
    /// Seconds of processors that both ends used for each GiB.
    public var cpuSecondsPerGiB: Double?
    /// How long nothing ran, in milliseconds.
    public var milliseconds: Double?
    /// Memory held.
    public var mebibytes: Double?

    /// Nothing measured.
    public init() {}

    mutating func take(_ recorders: [LatencyRecorder]) {
        let summary = LatencySummary(recorders)
        (p50, p99, p999) = (summary.p50, summary.p99, summary.p999)
    }

    /// Every figure.
    static let paths: [(name: String, path: any WritableKeyPath<Figures, Double?> & Sendable)] = [
        ("p50", \.p50), ("p99", \.p99), ("p999", \.p999), ("seconds", \.seconds), ("MiB/s", \.mebibytesPerSecond),
        ("CPU s/GiB", \.cpuSecondsPerGiB), ("ms", \.milliseconds), ("MiB", \.mebibytes),
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

    /// Each figure divided by another's.
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
        case cpuSecondsPerGiB = "cpu_s_per_gib", milliseconds = "ms", mebibytes = "mib"
    }
}

/// Rounds of a case: ours and what it is held against, each pair measured one after the other.
typealias Rounds = [(ours: Figures, other: Figures)]

/// One case: ours and what it is held against, measured in turn.
public struct Comparison: Sendable {
    /// The case's name.
    public let name: String
    /// What it is held against.
    public let against: String
    /// The median of ours.
    public let ours: Figures
    /// The median of the other.
    public let other: Figures
    /// The median of the rounds' ratios, ours by the other.
    public let ratio: Figures
    /// What ours waited for absent pages in all rounds, in nanoseconds; nil where nobody waited.
    public let stalls: Histogram<UInt64>?

    /// Makes one out of its rounds.
    ///
    /// - Parameters:
    ///   - rounds: ours and what it is held against, each pair measured one after the other.
    ///   - stalls: what ours waited for absent pages.
    public init(
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
        case name, against, ours, other, ratio
    }

    /// All but the distribution.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(against, forKey: .against)
        try container.encode(ours, forKey: .ours)
        try container.encode(other, forKey: .other)
        try container.encode(ratio, forKey: .ratio)
    }
}

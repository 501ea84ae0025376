/// Two reports side by side, `pageferry.compare/1`.
///
/// Only quantiles of waits have a verdict: a report counts enough waits to say how far their quantiles scatter. Every
/// other figure is measured once in a migration, so that two reports cannot tell a difference from scatter.
package struct ReportComparison: Encodable, Sendable {
    /// One of the two reports.
    package struct Side: Encodable, Sendable {
        /// The file.
        package let file: String
        package let result: Report.Result
        package let workload: String
        package let memoryBytes: UInt64
        package let pageSize: Int

        enum CodingKeys: String, CodingKey {
            case file, result, workload
            case memoryBytes = "memory_bytes"
            case pageSize = "page_size"
        }

        init(_ report: Report, in file: String) {
            self.file = file
            (result, workload) = (report.result, report.workload.name)
            (memoryBytes, pageSize) = (report.memoryBytes, report.pageSize)
        }
    }

    /// What can be said about the difference of a figure.
    package enum Verdict: String, Encodable, Sendable {
        /// The figure was measured once in each migration.
        case measuredOnce = "one_measurement_each"
        /// The intervals of the quantiles have room between them.
        case differs
        /// The intervals of the quantiles overlap or touch.
        case noDifference = "within_noise"
        /// There are too few waits for an interval in one of the reports.
        case tooFew = "too_few_waits"
    }

    /// What a figure counts.
    package enum Unit: String, Encodable, Sendable {
        case microseconds = "us", bytes, pages, count
        case mebibytesPerSecond = "mib_s"
    }

    /// One figure of both reports.
    package struct Figure: Encodable, Sendable {
        /// The field of the report, with its path.
        package let field: String
        package let unit: Unit
        /// The figure of each report; nil if that report does not have it.
        package let a, b: Double?
        /// `b` divided by `a`; nil if either is missing or 0.
        package let ratio: Double?
        package let verdict: Verdict
        /// The bounds of a quantile in each report; nil for other figures, and if there are too few waits.
        package let boundsOfA, boundsOfB: [Double]?

        enum CodingKeys: String, CodingKey {
            case field, unit, a, b, ratio, verdict
            case boundsOfA = "a_bounds"
            case boundsOfB = "b_bounds"
        }

        fileprivate init(
            _ field: String,
            _ unit: Unit,
            _ a: Double?,
            _ b: Double?,
            _ verdict: Verdict,
            _ bounds: (a: QuantileInterval?, b: QuantileInterval?) = (nil, nil)
        ) {
            (self.field, self.unit, self.verdict) = (field, unit, verdict)
            (self.a, self.b) = (a, b)
            ratio = if let a, let b, a > 0, b > 0, (b / a).isFinite { b / a } else { nil }
            (boundsOfA, boundsOfB) = (bounds.a.map { [$0.low, $0.high] }, bounds.b.map { [$0.low, $0.high] })
        }

        /// Writes every field, with null for one that is nil.
        package func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(field, forKey: .field)
            try container.encode(unit, forKey: .unit)
            try container.encode(a, forKey: .a)
            try container.encode(b, forKey: .b)
            try container.encode(ratio, forKey: .ratio)
            try container.encode(verdict, forKey: .verdict)
            try container.encode(boundsOfA, forKey: .boundsOfA)
            try container.encode(boundsOfB, forKey: .boundsOfB)
        }
    }

    private let schema = "pageferry.compare/1"
    package let a, b: Side
    package let figures: [Figure]

    /// Compares two reports, each with the file that it is from.
    package init(_ a: (report: Report, file: String), _ b: (report: Report, file: String)) {
        self.a = Side(a.report, in: a.file)
        self.b = Side(b.report, in: b.file)
        let (one, other) = (a.report, b.report)
        let single: [(String, Unit, (Report) -> Double?)] = [
            ("total_us", .microseconds, { $0.total }), ("downtime_us", .microseconds, { $0.downtime }),
            ("switchover_us.stop", .microseconds, { $0.switchover.stop }),
            ("switchover_us.save", .microseconds, { $0.switchover.save }),
            ("switchover_us.transfer", .microseconds, { $0.switchover.transfer }),
            ("switchover_us.load", .microseconds, { $0.switchover.load }),
            ("switchover_us.grant", .microseconds, { $0.switchover.grant }),
            ("switchover_us.start", .microseconds, { $0.switchover.start }),
            ("throughput_mib_s", .mebibytesPerSecond, { $0.throughput }),
            ("pages.demand", .pages, { Double($0.pages.demand) }),
            ("pages.prefetched", .pages, { Double($0.pages.prefetched) }),
            ("pages.pushed", .pages, { Double($0.pages.pushed) }),
            ("pages.zero", .pages, { Double($0.pages.zero) }),
            ("pages.duplicate", .pages, { Double($0.pages.duplicate) }),
            ("compression.bytes_before", .bytes, { $0.compression.map { Double($0.bytesBefore) } }),
            ("compression.bytes_after", .bytes, { $0.compression.map { Double($0.bytesAfter) } }),
            ("floor_us.round_trip_p50", .microseconds, { $0.floor.roundTripP50 }),
            ("floor_us.local_fault_p50", .microseconds, { $0.floor.localFaultP50 }),
        ]
        figures =
            single.map { Figure($0, $1, $2(one), $2(other), .measuredOnce) }
            + ReportComparison.waits("stall_us", one, other, \.stall, \.stall)
            + ReportComparison.waits("service_us", one, other, \.service, \.service)
    }

    /// The figures of one distribution of waits.
    private static func waits(
        _ name: String,
        _ one: Report,
        _ other: Report,
        _ summary: (Report) -> LatencySummary,
        _ parts: (Report.Distribution) -> [[Double]]
    ) -> [Figure] {
        func value(_ report: Report, _ path: (LatencySummary) -> Double) -> Double? {
            summary(report).count > 0 ? path(summary(report)) : nil
        }
        func bounds(_ report: Report, _ quantile: Double) -> QuantileInterval? {
            report.distribution.flatMap { QuantileInterval(of: quantile, in: parts($0), perOctave: $0.perOctave) }
        }
        let quantiles: [(String, Double, (LatencySummary) -> Double)] = [
            ("p50", 0.5, { $0.p50 }), ("p90", 0.9, { $0.p90 }), ("p99", 0.99, { $0.p99 }), ("p999", 0.999, { $0.p999 }),
        ]
        let compared = quantiles.map { key, quantile, path in
            let pair = (a: bounds(one, quantile), b: bounds(other, quantile))
            let verdict: Verdict =
                if let a = pair.a, let b = pair.b { a.isApart(from: b) ? .differs : .noDifference } else { .tooFew }
            return Figure("\(name).\(key)", .microseconds, value(one, path), value(other, path), verdict, pair)
        }
        func single(_ key: String, _ unit: Unit, _ path: (LatencySummary) -> Double) -> Figure {
            Figure("\(name).\(key)", unit, value(one, path), value(other, path), .measuredOnce)
        }
        return [single("count", .count) { Double($0.count) }] + compared
            + [single("max", .microseconds) { $0.max }, single("total", .microseconds) { $0.total }]
    }

    /// The comparison as one JSON object on one line.
    package func json() throws -> String {
        try JSONLine.encode(self)
    }
}

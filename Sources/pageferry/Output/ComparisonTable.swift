import Foundation
import Telemetry

/// Two reports side by side as a table.
struct ComparisonTable {
    private let comparison: ReportComparison

    /// Makes the table of a comparison.
    init(_ comparison: ReportComparison) {
        self.comparison = comparison
    }

    private static let names: [String: String] = [
        "total_us": "total time", "downtime_us": "downtime", "switchover_us.stop": "  stop",
        "switchover_us.save": "  save devices", "switchover_us.transfer": "  transfer",
        "switchover_us.load": "  load devices", "switchover_us.grant": "  grant", "switchover_us.start": "  start",
        "throughput_mib_s": "throughput", "pages.demand": "pages on demand", "pages.prefetched": "  prefetched",
        "pages.pushed": "  pushed", "pages.zero": "  known zero", "pages.duplicate": "  duplicate",
        "compression.bytes_before": "compressed from", "compression.bytes_after": "  to",
        "floor_us.round_trip_p50": "floor, round trip", "floor_us.local_fault_p50": "  local fault",
    ]

    /// The figures before which a line is left empty.
    private static let groups: Set = [
        "downtime_us", "throughput_mib_s", "compression.bytes_before", "floor_us.round_trip_p50", "stall_us.count",
        "service_us.count",
    ]

    var lines: [String] {
        let (a, b) = (comparison.a, comparison.b)
        var lines = ["A: \(a.file)", "B: \(b.file)", "", row("", "A", "B", "B / A", "")]
        lines.append(row("result", a.result.rawValue, b.result.rawValue, "", ""))
        lines.append(row("workload", a.workload, b.workload, "", ""))
        lines.append(row("memory", bytes(Double(a.memoryBytes)), bytes(Double(b.memoryBytes)), "", ""))
        lines.append(row("page size", bytes(Double(a.pageSize)), bytes(Double(b.pageSize)), "", ""))
        for figure in comparison.figures where figure.a ?? 0 != 0 || figure.b ?? 0 != 0 {
            if ComparisonTable.groups.contains(figure.field) || figure.field == "total_us" { lines.append("") }
            lines.append(
                row(
                    name(figure.field),
                    text(figure.a, figure.unit),
                    text(figure.b, figure.unit),
                    figure.ratio.map { String(format: "× %.2f", $0) } ?? "",
                    note(figure)
                )
            )
        }
        return lines + [""] + conclusion
    }

    /// What differs, and what cannot be said.
    private var conclusion: [String] {
        let (a, b) = (comparison.a, comparison.b)
        var lines: [String] = []
        if (a.workload, a.memoryBytes, a.pageSize) != (b.workload, b.memoryBytes, b.pageSize) {
            lines.append("The two migrations moved different workloads, memory or page sizes.")
        }
        let differing = comparison.figures.filter { $0.verdict == .differs }
        for figure in differing {
            let isLonger = (figure.b ?? 0) > (figure.a ?? 0)
            lines.append(
                "More than noise: \(name(figure.field)) is \(isLonger ? "longer" : "shorter") in B, with 99 % confidence "
                    + "\(range(figure.boundsOfA)) in A and \(range(figure.boundsOfB)) in B."
            )
        }
        if differing.isEmpty {
            let isAnyCompared = comparison.figures.contains { $0.verdict == .noDifference }
            lines.append(
                isAnyCompared
                    ? "No quantile of the waits differs by more than noise."
                    : "The reports have too few waits to compare any quantile."
            )
        }
        lines.append("All other figures are one measurement each: repeat both migrations to see how they scatter.")
        return lines
    }

    private func note(_ figure: ReportComparison.Figure) -> String {
        switch figure.verdict {
        case .measuredOnce: "one measurement each"
        case .differs: "differs"
        case .noDifference: "within noise"
        case .tooFew: "too few waits"
        }
    }

    private func name(_ field: String) -> String {
        if let name = ComparisonTable.names[field] { return name }
        let parts = field.split(separator: ".")
        let key = ["p999": "p99.9", "total": "sum"][parts.last ?? ""] ?? String(parts.last ?? "")
        return "\(parts.first == "stall_us" ? "stall" : "service") \(key)"
    }

    private func text(_ value: Double?, _ unit: ReportComparison.Unit) -> String {
        guard let value else { return "–" }
        return switch unit {
        case .microseconds: ReportTable.text(microseconds: value)
        case .bytes: bytes(value)
        case .pages, .count: String(format: "%.0f", value)
        case .mebibytesPerSecond: String(format: "%.0f MiB/s", value)
        }
    }

    private func bytes(_ value: Double) -> String {
        value < 1_048_576 ? String(format: "%.0f KiB", value / 1024) : String(format: "%.0f MiB", value / 1_048_576)
    }

    private func range(_ bounds: [Double]?) -> String {
        guard let bounds, bounds.count == 2 else { return "–" }
        return "\(ReportTable.text(microseconds: bounds[0])) to \(ReportTable.text(microseconds: bounds[1]))"
    }

    private func row(_ name: String, _ a: String, _ b: String, _ ratio: String, _ note: String) -> String {
        let line =
            name.padding(toLength: max(18, name.count), withPad: " ", startingAt: 0)
            + pad(a, 12) + pad(b, 13) + pad(ratio, 10) + (note.isEmpty ? "" : "  \(note)")
        return String(line.reversed().drop { $0 == " " }.reversed())
    }

    private func pad(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(1, width - text.count)) + text
    }
}

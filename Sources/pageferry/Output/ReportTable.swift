import Foundation
import Identity
import Telemetry

/// A report as a table.
struct ReportTable {
    private let report: Report
    private let namesReason: Bool

    /// Makes the table of a report.
    ///
    /// - Parameter namesReason: whether the table says why the migration has not completed; false if the command says
    ///   so in a line of its own.
    init(_ report: Report, namesReason: Bool = true) {
        self.report = report
        self.namesReason = namesReason
    }

    var lines: [String] {
        let head = namesReason ? headline : place
        var lines = wrap("\(report.result.rawValue): \(head)", to: ReportTable.width) + [""]
        lines += rows("source", report.source.states.map(\.rawValue).joined(separator: " → "))
        let there = report.destination.states.map(\.rawValue).joined(separator: " → ")
        lines += rows("destination", there.isEmpty ? "not reached" : there)
        if report.total > 0 { lines.append(row("total time", time(report.total))) }
        lines += ["", row("memory", "\(mebibytes(report.memoryBytes)) in pages of \(pageSize)")]
        lines += rows("operations", operations)
        if report.downtime > 0 { lines += ["", row("downtime", time(report.downtime))] + switchover }
        if report.pages.total > 0 { lines += [""] + pages }
        if let compression = report.compression, compression.runs > 0 { lines += rows("compressed", text(compression)) }
        // A distribution without samples has no figures.
        let faults = [("stall", report.stall), ("service", report.service)].filter { $0.1.count > 0 }
        if !faults.isEmpty { lines += ["", distribution("", nil)] + faults.map { distribution($0, $1) } }
        if report.waiting.faults > 0 {
            lines += rows(
                "waiting",
                "\(counted(report.waiting.faults, "fault")), the oldest for \(time(report.waiting.oldest))"
            )
        }
        if report.floor.roundTripP50 > 0 {
            lines += rows(
                "floor",
                "round trip of 4 KiB \(time(report.floor.roundTripP50)), local fault \(time(report.floor.localFaultP50))"
            )
        }
        if report.verify.pagesChecked > 0 { lines += [""] + rows("verified", verified) }
        return lines
    }

    /// Why the migration has not completed, and where the workload runs.
    var headline: String {
        guard let error = report.error else { return place }
        // The reason may already say where the workload runs.
        let isSaid = report.runsOn == .destination && error.hasSuffix("the workload has started on the destination")
        return isSaid || report.runsOn == nil ? error : "\(error); \(place)"
    }

    /// Where the workload runs.
    var place: String {
        switch report.runsOn {
        case .source: "the workload runs on the source"
        case .destination: "the workload runs on the destination"
        case .nobody: "the workload runs on neither side"
        case nil: "whether the workload runs is unknown"
        }
    }

    private var operations: String {
        let work = report.workload
        // A microVM and a workload in another program do not count operations.
        guard work.opsSource > 0 || work.opsDestination > 0 else { return "\(work.name): none were counted" }
        var text = "\(work.name): \(work.opsSource) on the source, \(work.opsDestination) on the destination"
        if work.opsAfterTakeBack > 0 {
            text += "; \(work.opsAfterTakeBack) on the source after it took the workload back"
        }
        return text
    }

    private var switchover: [String] {
        let parts = report.switchover
        return [
            ("stop", parts.stop), ("save devices", parts.save), ("transfer", parts.transfer),
            ("load devices", parts.load), ("grant", parts.grant), ("start", parts.start),
        ].map { row("  \($0)", time($1)) }
    }

    private var pages: [String] {
        let pages = report.pages
        func share(_ count: Int) -> String {
            let percent = 100 * Double(count) / Double(pages.total)
            return pad("\(count)", 9) + pad(String(format: "%.1f %%", percent), 10)
        }
        let lanes = (report.pushLanes ?? 1) > 1 ? "  over \(report.pushLanes ?? 1) connections" : ""
        var lines = [
            row("pages", pad("\(pages.total)", 9) + String(format: "%12.0f MiB/s", report.throughput)),
            row("  on demand", share(pages.demand)),
            row("  pushed", share(pages.pushed) + lanes),
            row("  known zero", share(pages.zero)),
        ]
        if pages.prefetched > 0 {
            lines.append(row("  prefetched", share(pages.prefetched)))
            lines.append(row("  not seen used", pad("\(pages.prefetchedUnused)", 9)))
        }
        lines.append(row("  duplicate", pad("\(pages.duplicate)", 9)))
        return lines
    }

    private func text(_ compression: Report.Compression) -> String {
        let (before, after) = (UInt64(max(0, compression.bytesBefore)), UInt64(max(0, compression.bytesAfter)))
        return "\(mebibytes(before)) to \(mebibytes(after)) by \(compression.codec), processor time "
            + time(compression.processorTime)
    }

    /// Makes the row of a distribution, or the row of its headings.
    ///
    /// The count and five figures leave less room for the name than in other rows.
    private func distribution(_ name: String, _ summary: LatencySummary?) -> String {
        let beginning = name.padding(toLength: 7, withPad: " ", startingAt: 0)
        guard let summary else {
            let heads = ["p50", "p90", "p99", "p99.9", "max"]
            return beginning + pad("count", 8) + heads.map { pad($0, 9) }.joined()
        }
        let cells = [summary.p50, summary.p90, summary.p99, summary.p999, summary.max].map { pad(time($0), 9) }
        return beginning + pad("\(summary.count)", 8) + cells.joined()
    }

    private var verified: String {
        let verify = report.verify
        var text = "\(counted(verify.pagesChecked, "page")), \(verify.corrupt) corrupt"
        if let found = verify.linesFound, let total = verify.linesTotal {
            text += "; \(found) of \(counted(total, "line")) found"
        }
        return text
    }

    /// The most columns of a line; only a single longer word exceeds them.
    private static let width = 60
    private static let nameWidth = 16

    private func row(_ name: String, _ value: String) -> String {
        name.padding(toLength: ReportTable.nameWidth, withPad: " ", startingAt: 0) + value
    }

    /// Makes a row whose value continues on further lines if it is long.
    private func rows(_ name: String, _ value: String) -> [String] {
        let lines = wrap(value, to: ReportTable.width - ReportTable.nameWidth)
        return lines.enumerated().map { row($0 == 0 ? name : "", $1) }
    }

    private func wrap(_ text: String, to width: Int) -> [String] {
        var lines = [""]
        for word in words(of: text) {
            let line = lines[lines.count - 1]
            if line.isEmpty {
                lines[lines.count - 1] = String(word)
            } else if line.count + 1 + word.count <= width {
                lines[lines.count - 1] += " \(word)"
            } else {
                lines.append(String(word))
            }
        }
        return lines
    }

    /// Splits a text where a line may break; a number stays with its unit.
    private func words(of text: String) -> [String] {
        text.split(separator: " ").reduce(into: []) { words, next in
            if let last = words.last, last.allSatisfy({ $0.isNumber || $0 == "." }) {
                words[words.count - 1] = "\(last) \(next)"
            } else {
                words.append(String(next))
            }
        }
    }

    private func pad(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    private func mebibytes(_ bytes: UInt64) -> String {
        bytes < 1 << 20 ? "\(bytes >> 10) KiB" : "\(bytes >> 20) MiB"
    }

    private var pageSize: String {
        report.pageSize < 1 << 20 ? "\(report.pageSize >> 10) KiB" : "\(report.pageSize >> 20) MiB"
    }

    private func time(_ microseconds: Double) -> String { ReportTable.text(microseconds: microseconds) }

    /// Formats a time with at least three significant digits.
    static func text(microseconds: Double) -> String {
        let (value, unit) =
            switch microseconds {
            case ..<999.5: (microseconds, "µs")
            case ..<999_500: (microseconds / 1000, "ms")
            default: (microseconds / 1_000_000, "s")
            }
        return String(format: value < 9.995 ? "%.2f" : value < 99.95 ? "%.1f" : "%.0f", value) + " \(unit)"
    }
}

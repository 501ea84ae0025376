import Foundation
import Telemetry

/// A report as a table for people.
struct ReportTable {
    private let report: Report

    init(_ report: Report) {
        self.report = report
    }

    var lines: [String] {
        var lines = ["\(report.result.rawValue): \(headline)", ""]
        lines += [
            row("source", report.source.states.joined(separator: " → ")),
            row("destination", report.destination.states.joined(separator: " → ")),
            "",
            row("memory", "\(mebibytes(report.memoryBytes)) in pages of \(pageSize)"),
            row("operations", operations),
        ]
        if report.downtime > 0 { lines += ["", row("downtime", time(report.downtime))] + switchover }
        if report.pages.total > 0 { lines += [""] + pages }
        // What was not measured has no figures.
        let faults = [("stall", report.stall), ("service", report.service)].filter { $0.1.count > 0 }
        if !faults.isEmpty { lines += ["", distribution("", nil)] + faults.map { distribution($0, $1) } }
        if report.floor.roundTripP50 > 0 {
            lines.append(
                row(
                    "floor",
                    "round trip of 4 KiB \(time(report.floor.roundTripP50)), local fault "
                        + time(report.floor.localFaultP50)
                )
            )
        }
        if report.verify.pagesChecked > 0 { lines += ["", row("verified", verified)] }
        return lines
    }

    private var headline: String {
        let place =
            switch report.runsOn {
            case .source: "the workload runs on the source"
            case .destination: "the workload runs on the destination"
            case .nobody: "the workload is stopped"
            case nil: "whether the workload runs is unknown"
            }
        guard let error = report.error else { return "\(place), after \(time(report.total))" }
        // The reason may say so itself.
        let isSaid = report.runsOn == .destination && error.hasSuffix("the workload has started on the destination")
        return isSaid || report.runsOn == nil ? error : "\(error); \(place)"
    }

    private var operations: String {
        let work = report.workload
        // Nobody counts what a guest of another program does.
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
        var lines = [
            row("pages", pad("\(pages.total)", 9) + String(format: "%12.0f MiB/s", report.throughput)),
            row("  on demand", share(pages.demand)),
            row("  pushed", share(pages.pushed)),
            row("  known zero", share(pages.zero)),
        ]
        if pages.prefetched > 0 {
            lines.append(row("  prefetched", share(pages.prefetched) + "  \(pages.prefetchedUnused) not seen used"))
        }
        lines.append(row("  duplicate", pad("\(pages.duplicate)", 9)))
        return lines
    }

    private func distribution(_ name: String, _ summary: LatencySummary?) -> String {
        guard let summary else {
            return row(name, ["count", "p50", "p90", "p99", "p99.9", "max"].map { pad($0, 10) }.joined())
        }
        let cells = [summary.p50, summary.p90, summary.p99, summary.p999, summary.max].map { pad(time($0), 10) }
        return row(name, pad("\(summary.count)", 10) + cells.joined())
    }

    private var verified: String {
        let verify = report.verify
        var text = "\(verify.pagesChecked) pages, \(verify.corrupt) corrupt"
        if let found = verify.linesFound, let total = verify.linesTotal { text += "; \(found) of \(total) lines found" }
        return text
    }

    private func row(_ name: String, _ value: String) -> String {
        name.padding(toLength: 16, withPad: " ", startingAt: 0) + value
    }

    private func pad(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    private func mebibytes(_ bytes: UInt64) -> String { "\(bytes >> 20) MiB" }

    private var pageSize: String {
        report.pageSize < 1 << 20 ? "\(report.pageSize >> 10) KiB" : "\(report.pageSize >> 20) MiB"
    }

    private func time(_ microseconds: Double) -> String {
        switch microseconds {
        case ..<1000: String(format: "%.1f µs", microseconds)
        case ..<1_000_000: String(format: "%.2f ms", microseconds / 1000)
        default: String(format: "%.2f s", microseconds / 1_000_000)
        }
    }
}

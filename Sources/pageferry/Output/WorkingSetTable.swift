import Foundation
import Telemetry
import WorkingSet

/// Recorded working sets, as a table or as JSON.
struct WorkingSetTable {
    private let printed: Printed

    init(_ records: [(name: String, set: WorkingSet)], merged: (name: String, set: WorkingSet)?) {
        var overlaps: [Overlap] = []
        for (index, one) in records.enumerated() {
            for other in records[(index + 1)...] {
                overlaps.append(Overlap(a: one.name, b: other.name, jaccard: one.set.jaccardIndex(with: other.set)))
            }
        }
        printed = Printed(
            records: records.map { Record($0.name, $0.set) },
            overlaps: overlaps,
            merged: merged.map { Record($0.name, $0.set) }
        )
    }

    private struct Printed: Encodable {
        let schema = "pageferry.workingset/1"
        let records: [Record]
        let overlaps: [Overlap]
        let merged: Record?

        enum CodingKeys: CodingKey { case schema, records, overlaps, merged }

        /// Encodes nil as null, so that every object has the same keys.
        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(schema, forKey: .schema)
            try container.encode(records, forKey: .records)
            try container.encode(overlaps, forKey: .overlaps)
            try container.encode(merged, forKey: .merged)
        }
    }

    /// The figures of one record.
    private struct Record: Encodable {
        let file: String
        let pages: UInt32
        let bytes: UInt64
        let snapshotBytes: UInt64
        let pageSize: UInt32
        let share: Double
        let runs: Int
        let shareInLongRuns: Double
        let windowMilliseconds: UInt32
        let firstRuns: [Run]

        enum CodingKeys: String, CodingKey {
            case file, pages, bytes, share, runs
            case snapshotBytes = "snapshot_bytes"
            case pageSize = "page_size"
            case shareInLongRuns = "share_in_long_runs"
            case windowMilliseconds = "window_ms"
            case firstRuns = "first_runs"
        }

        init(_ file: String, _ set: WorkingSet) {
            self.file = file
            pages = set.pageCount
            bytes = set.byteCount
            snapshotBytes = set.memory.byteCount
            pageSize = set.memory.pageSize
            share = set.shareOfMemory
            runs = set.runs.count
            shareInLongRuns = set.share(inRunsOf: 16)
            windowMilliseconds = set.window
            firstRuns = set.runs.prefix(8).map { Run(first: $0.first, count: $0.count) }
        }
    }

    private struct Run: Encodable {
        let first: UInt32
        let count: UInt32
    }

    private struct Overlap: Encodable {
        let a: String
        let b: String
        /// The Jaccard index of two records; nil if they are of different snapshots.
        let jaccard: Double?

        enum CodingKeys: CodingKey { case a, b, jaccard }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(a, forKey: .a)
            try container.encode(b, forKey: .b)
            try container.encode(jaccard, forKey: .jaccard)
        }
    }

    func json() throws -> String {
        try JSONLine.encode(printed)
    }

    var lines: [String] {
        var blocks = printed.records.map { block($0.file, $0) }
        if !printed.overlaps.isEmpty {
            let lines = printed.overlaps.map { overlap in
                let index = overlap.jaccard.map { String(format: "%.3f", $0) } ?? "of different snapshots"
                return row(index, "\(overlap.a) and \(overlap.b)")
            }
            blocks.append(["overlap, as the Jaccard index"] + lines)
        }
        if let merged = printed.merged { blocks.append(block("merged into \(merged.file)", merged)) }
        return Array(blocks.joined(separator: [""]))
    }

    private func block(_ title: String, _ record: Record) -> [String] {
        [
            title,
            row("pages", "\(record.pages) of \(record.pageSize >> 10) KiB, \(mebibytes(record.bytes)) MiB"),
            row("of the snapshot", "\(percent(record.share)) of \(mebibytes(record.snapshotBytes)) MiB"),
            row("runs", "\(record.runs); \(percent(record.shareInLongRuns)) of the pages in runs of 16 or more"),
            row("window", "\(Double(record.windowMilliseconds) / 1000) s"),
            row("order", order(record)),
        ]
    }

    /// Formats the first runs, such as `16-18, 3, …`.
    private func order(_ record: Record) -> String {
        let runs = record.firstRuns.map { $0.count == 1 ? "\($0.first)" : "\($0.first)-\($0.first + $0.count - 1)" }
        return (runs + (record.runs > runs.count ? ["…"] : [])).joined(separator: ", ")
    }

    private func row(_ name: String, _ value: String) -> String {
        "  " + name.padding(toLength: max(name.count, 24), withPad: " ", startingAt: 0) + value
    }

    private func percent(_ share: Double) -> String { String(format: "%.1f %%", 100 * share) }

    private func mebibytes(_ bytes: UInt64) -> String { String(format: "%.1f", Double(bytes) / 0x1p20) }
}

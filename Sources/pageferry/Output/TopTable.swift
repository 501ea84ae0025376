import Foundation

/// What `top` shows, as lines.
struct TopTable {
    private let looks: [TopLook]

    init(_ looks: [TopLook]) { self.looks = looks }

    /// The lines, each of at most `width` characters; nil for no limit.
    func lines(width: Int?) -> [String] {
        let names = looks.flatMap { [$0.error == nil ? "" : "\($0.address)"] + $0.rows.map(\.name) }
        let name = min(max(20, (width ?? .max) / 3), names.map(\.count).max() ?? 0, 48)
        let head = TopTable.line(["ADDRESS", "STATE", "PAGES", "PAGES/S", "WAIT", "P50", "P99", "WORKLOAD"], name)
        let lines = looks.flatMap { look in
            // The reason has the place of the figures.
            look.error.map { ["\(TopTable.cell("\(look.address)", name)) \($0)"] }
                ?? look.rows.map { TopTable.line(TopTable.cells($0), name) }
        }
        return ([head] + lines).map { line in width.map { String(line.prefix(max(1, $0))) } ?? line }
    }

    private static func cells(_ row: TopLook.Row) -> [String] {
        let share = row.pages.map { pages in
            // Rounded down, so that 100 % means all.
            pages.total > 0
                ? String(format: "%.0f %%", (100 * Double(pages.here) / Double(pages.total)).rounded(.down)) : ""
        }
        return [
            row.name, row.state, share ?? "", row.rate.map { String(format: "%.0f", $0) } ?? "",
            row.waiting > 0 ? "\(row.waiting)" : "", row.waits.map { ReportTable.text(microseconds: $0.p50) } ?? "",
            row.waits.map { ReportTable.text(microseconds: $0.p99) } ?? "", row.note,
        ]
    }

    private static func line(_ cells: [String], _ name: Int) -> String {
        let widths = [name, 22, -6, -8, -5, -8, -8]
        var line = zip(cells, widths).map(cell).joined(separator: " ")
        if let note = cells.last, !note.isEmpty { line += "  \(note)" }
        return line
    }

    /// A text in a column, on the right if the width is negative.
    private static func cell(_ cell: String, _ width: Int) -> String {
        let room = abs(width)
        // The end of a path tells more than its beginning.
        let text = cell.count > room ? "…" + cell.suffix(room - 1) : cell
        let space = String(repeating: " ", count: room - text.count)
        return width < 0 ? space + text : text + space
    }
}

import Bench
import Foundation
import Telemetry

/// The results of a benchmark, as a table or as JSON.
struct BenchTable {
    private let cases: [Comparison]

    init(_ cases: [Comparison]) {
        self.cases = cases
    }

    private struct Printed: Encodable {
        let schema = "pageferry.bench/1"
        let cases: [Comparison]
    }

    func json() throws -> String {
        try JSONLine.encode(Printed(cases: cases))
    }

    /// The lines of each case: every figure, the figure it is compared with, and their ratio.
    var lines: [String] {
        let figures: [(name: String, path: KeyPath<Figures, Double?>, format: String)] = [
            ("p50 us", \.p50, "%.1f"), ("p99 us", \.p99, "%.1f"), ("p99.9 us", \.p999, "%.1f"),
            ("seconds", \.seconds, "%.3f"), ("MiB/s", \.mebibytesPerSecond, "%.0f"),
            ("CPU s/GiB", \.cpuSecondsPerGiB, "%.2f"), ("CPU us/fault", \.cpuMicrosecondsPerFault, "%.1f"),
            ("ms", \.milliseconds, "%.1f"), ("MiB", \.mebibytes, "%.1f"),
        ]
        return cases.enumerated().flatMap { index, one in
            var lines = (index == 0 ? [] : [""]) + ["\(one.name), against \(one.against)"]
            for (name, path, format) in figures {
                guard let ours = one.ours[keyPath: path] else { continue }
                var line = "  " + name.padding(toLength: 12, withPad: " ", startingAt: 0)
                line += column(String(format: format, ours))
                if let other = one.other[keyPath: path] { line += column(String(format: format, other)) }
                if let ratio = one.ratio[keyPath: path] { line += column(String(format: "× %.2f", ratio)) }
                lines.append(line)
            }
            return lines
        }
    }

    private func column(_ text: String) -> String {
        String(repeating: " ", count: max(1, 12 - text.count)) + text
    }
}

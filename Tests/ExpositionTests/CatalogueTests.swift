import Exposition
import Foundation
import Testing

/// The list of metrics, held to what is written about them.
@Suite("The list of metrics")
struct CatalogueTests {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..")

    private func text(_ path: String) throws -> String {
        try String(contentsOf: CatalogueTests.root.appending(path: path), encoding: .utf8)
    }

    @Test("is that of the article, with kinds, labels and meanings")
    func article() throws {
        let article = try text("Sources/pageferry/pageferry.docc/WatchAndAlert.md")
        let rows = article.split(separator: "\n").filter {
            $0.hasPrefix("| `pageferry_") || $0.hasPrefix("| `process_")
        }
        let expected = Metric.all.map { metric in
            let labels = metric.labels.map { "`\($0)`" }.joined(separator: ", ")
            return "| `\(metric.sampleName)` | \(metric.kind.rawValue) | \(labels) | \(metric.help). |"
        }
        #expect(rows.map(String.init) == expected)
    }

    @Test("follows the conventions of Prometheus")
    func conventions() {
        #expect(Set(Metric.all.map(\.name)).count == Metric.all.count)
        for metric in Metric.all {
            #expect(metric.name.wholeMatch(of: /(pageferry|process)_[a-z_]+/) != nil)
            #expect(!metric.name.hasSuffix("_total") && !metric.help.hasSuffix("."))
            for label in metric.labels { #expect(label.wholeMatch(of: /[a-z_]+/) != nil) }
            switch metric.kind {
            case .histogram, .summary: #expect(metric.name.hasSuffix("_seconds"))
            case .counter, .gauge, .info: break
            }
        }
    }

    @Test("has every metric of the alert rules and of the dashboard", arguments: ["alerts.yml", "dashboard.json"])
    func monitoring(file: String) throws {
        var names: Set<String> = []
        for metric in Metric.all {
            switch metric.kind {
            case .histogram: names.formUnion(["_bucket", "_sum", "_count"].map { metric.name + $0 })
            case .summary: names.formUnion(["", "_sum", "_count"].map { metric.name + $0 })
            case .counter, .gauge, .info: names.insert(metric.sampleName)
            }
        }
        let used = try text("Monitoring/\(file)").matches(of: /pageferry_[a-z_]+/).map { String($0.0) }
        #expect(used.count > 3)
        for name in used { #expect(names.contains(name), "\(name)") }
    }

    @Test("has an alert in the article for each rule")
    func alerts() throws {
        let rules = try text("Monitoring/alerts.yml").matches(of: /alert: (\w+)/).map { String($0.1) }
        let article = try text("Sources/pageferry/pageferry.docc/WatchAndAlert.md")
        let rows = article.matches(of: /\n\| `(Pageferry\w+)` \|/).map { String($0.1) }
        #expect(rows == rules && rules.count >= 5)
    }
}

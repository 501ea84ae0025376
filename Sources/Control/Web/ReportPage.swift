/// The page of a report, of a migration, a restored guest or a benchmark, in one file without outside resources.
package enum ReportPage {
    /// The files that the template `report.html` names in double braces, beside the report itself.
    private static let parts = [
        "shared.css": PackageResources.shared_css,
        "report.css": PackageResources.report_css,
        "shared.js": PackageResources.shared_js,
        "bench.js": PackageResources.bench_js,
        "report.js": PackageResources.report_js,
    ]

    /// Returns the page of a report.
    ///
    /// - Parameter report: the report's JSON text, whose strings may hold anything.
    package static func html(of report: String) -> [UInt8] {
        // An end tag in a string would end the element that holds the report.
        let data = Array(report.replacing("<", with: "\\u003c").utf8)
        var page: [UInt8] = []
        var rest = PackageResources.report_html[...]
        // One pass, so that nothing that was put in is searched for names again.
        while let open = place(of: "{{", in: rest), let close = place(of: "}}", in: rest[open...]) {
            page += rest[..<open]
            let name = String(decoding: rest[(open + 2)..<close], as: UTF8.self)
            page += name == "report.json" ? data : parts[name] ?? []
            rest = rest[(close + 2)...]
        }
        return page + rest
    }

    private static func place(of mark: String, in bytes: ArraySlice<UInt8>) -> Int? {
        let mark = Array(mark.utf8)
        return bytes.indices.dropLast().first { bytes[$0] == mark[0] && bytes[$0 + 1] == mark[1] }
    }
}

import Foundation
import Telemetry
import Testing

@testable import Web

@Suite("The page of a report")
struct ReportPageTests {
    @Test("holds the report, the style and the code, and ends no element early")
    func page() throws {
        var report = Report()
        report.error = "</script><script>alert(1)</script> {{shared.js}} {{report.json}}"
        report.workload.name = "<!--<script>"
        let json = try report.json()
        let page = String(decoding: ReportPage.html(of: json), as: UTF8.self)
        let data = try #require(
            page.components(separatedBy: #"id="data">"#).last?.components(separatedBy: "</script>").first
        )
        let read = try JSONDecoder().decode(Report.self, from: Data(data.utf8))
        #expect(read == report)
        #expect(page.components(separatedBy: "<script").count == 3)
        // The names in the report stay as they are, and every name of the template is gone.
        #expect(page.components(separatedBy: "{{").count == 3)
        #expect(page.hasSuffix("</html>\n"))
        // A report has no map.
        #expect(!page.contains("CellMap"))
        #expect(!page.contains("http://") || !page.contains("src="))
    }
}

import Foundation
import Testing
import WorkingSet

/// Compares the article's example and bounds with the encoder's.
@Suite struct ArticleTests {
    private func article() throws -> String {
        let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        let path = "../../Sources/Values/WorkingSet/WorkingSet.docc/TheRecord.md"
        return try String(contentsOf: tests.appendingPathComponent(path), encoding: .utf8)
    }

    @Test func `the article's example is the encoder's output`() throws {
        let article = try article()
        let begin = try #require(article.range(of: "```hex\n"))
        let block = article[begin.upperBound...].prefix { $0 != "`" }
        let bytes = try block.split(separator: "\n").flatMap { line in
            try line.prefix { $0 != "|" }.split(separator: " ").map { try #require(UInt8($0, radix: 16)) }
        }
        #expect(bytes == (try Samples.example().encode()))
    }

    @Test func `the article's bounds are the bounds in the code`() throws {
        let article = try article()
        #expect(article.contains("n: 0 to \(WorkingSet.maxRuns) |"))
        #expect(article.contains("at most \(WorkingSet.Record.maxByteCount)."))
        #expect(article.contains("1 to \(UInt32.max) whole pages"))
    }
}

import Foundation
import Testing

@testable import pageferry

@Suite("The exit statuses")
struct ExitStatusTests {
    @Test("are those of the table in the article Operate")
    func table() throws {
        let article = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Sources/pageferry/pageferry.docc/Operate.md")
        let text = try String(contentsOf: article, encoding: .utf8)
        let numbers = text.matches(of: /(?m)^\| (\d+) \|/).compactMap { Int32($0.1) }
        #expect(numbers == ExitStatus.allCases.map(\.rawValue))
    }

    @Test("have no other source: the commands exit with these numbers only")
    func sources() throws {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Sources/pageferry").standardized
        let files = try #require(FileManager.default.enumerator(atPath: folder.path)?.allObjects as? [String])
        var found = 0
        for file in files where file.hasSuffix(".swift") {
            let text = try String(contentsOf: folder.appendingPathComponent(file), encoding: .utf8)
            for match in text.matches(of: /\b(?:ExitCode|exit)\((\d+)\)/) {
                found += 1
                let status = try #require(Int32(match.1))
                #expect(ExitStatus(rawValue: status) != nil, "\(file) exits with \(status)")
            }
        }
        #expect(found > 5)
    }
}

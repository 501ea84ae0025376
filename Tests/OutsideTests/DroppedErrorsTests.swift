import Foundation
import Testing

/// Checks that the source code gives a reason for each error that it drops.
@Suite("A dropped error")
struct DroppedErrorsTests {
    private static let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Sources")

    /// The first line of a `catch` that may take any error.
    ///
    /// A `catch` of a single case, such as `.fileExists`, says by itself which error it drops.
    private static let opening = #"\bcatch\b(?! *\.)[^{]*\{$"#

    private func matches(_ pattern: String, _ line: String) -> Bool {
        line.range(of: pattern, options: .regularExpression) != nil
    }

    private func isComment(_ line: String) -> Bool { line.hasPrefix("//") }

    @Test("has its reason beside it or on the line before")
    func reasons() throws {
        let files = FileManager.default.enumerator(atPath: DroppedErrorsTests.sources.path)?.allObjects as? [String]
        let swift = try #require(files).filter { $0.hasSuffix(".swift") }.sorted()
        var found = 0
        for file in swift {
            let text = try String(contentsOf: DroppedErrorsTests.sources.appendingPathComponent(file), encoding: .utf8)
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map {
                $0.trimmingCharacters(in: .whitespaces)
            }
            for (number, line) in lines.enumerated() where !isComment(line) {
                let drops =
                    matches(#"\btry\?|\bcatch\b[^{]*\{\s*\}"#, line)
                    || matches(DroppedErrorsTests.opening, line) && isUnread(line, behind: text, number)
                guard drops else { continue }
                found += 1
                let isTold =
                    line.contains(" // ") || number > 0 && isComment(lines[number - 1])
                    || lines.indices.contains(number + 1) && line.hasSuffix("{") && lines[number + 1].contains("//")
                #expect(isTold, "\(file):\(number + 1): \(line)")
            }
        }
        // If fewer lines were found, the paths are wrong and nothing was checked.
        #expect(found > 60)
    }

    /// Whether the body of a `catch` does not use the error.
    private func isUnread(_ line: String, behind text: String, _ number: Int) -> Bool {
        let bound = line.range(of: #"(?<=\blet )\w+"#, options: .regularExpression).map { String(line[$0]) } ?? "error"
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)[number...]
        let indent = lines.first?.prefix { $0 == " " }.count ?? 0
        let body = lines.dropFirst().prefix { $0.prefix { $0 == " " }.count > indent || $0.isEmpty }
        return !body.contains { line in
            let code = line.components(separatedBy: "//")[0]
            return matches(#"\b\#(bound)\b"#, code)
        }
    }
}

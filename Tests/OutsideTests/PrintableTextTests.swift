import Foundation
import Outside
import Testing

@Suite("Text from outside")
struct PrintableTextTests {
    @Test(
        "is written on one line, without what a terminal obeys",
        arguments: [
            ("a\nb", "a\\nb"), ("a\r\tb", "a\\r\\tb"), ("\u{1b}[2J", "\\u{1b}[2J"), ("\u{9b}31m", "\\u{9b}31m"),
            ("\0", "\\u{0}"), ("\u{7f}", "\\u{7f}"), ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            ("a\u{200b}b", "a\\u{200b}b"), ("a\u{2028}b", "a\\u{2028}b"), ("\u{feff}", "\\u{feff}"),
            ("\u{e0041}", "\\u{e0041}"), ("\u{3164}", "\\u{3164}"),
        ]
    )
    func escapes(text: String, written: String) {
        #expect(PrintableText.line(text) == written)
    }

    @Test("is left as it is where it does no harm", arguments: ["", "plain", "é ß 漢字 → µs", "C:\\x", "e\u{301}"])
    func harmless(text: String) {
        #expect(PrintableText.line(text) == text)
        #expect(PrintableText.json(text) == text)
    }

    @Test("is cut where it is too long, and says by how much")
    func cut() {
        let line = PrintableText.line(String(repeating: "x", count: PrintableText.maxLineBytes + 100))
        #expect(line.hasSuffix("x… (100 more bytes)"))
        #expect(line.utf8.count < PrintableText.maxLineBytes + 32)
        let escaped = PrintableText.line(String(repeating: "\u{1b}", count: 1 << 20))
        #expect(escaped.utf8.count < PrintableText.maxLineBytes + 32)
    }

    @Test("means the same in JSON")
    func json() throws {
        let value = "a\u{9b}b\u{202e}c\u{e0041}\u{7f}"
        let text = String(decoding: try JSONEncoder().encode([value]), as: UTF8.self)
        let printed = PrintableText.json(text)
        #expect(printed == #"["a\u009bb\u202ec\udb40\udc41\u007f"]"#)
        #expect(try JSONDecoder().decode([String].self, from: Data(printed.utf8)) == [value])
    }
}

@Suite("Repeated lines")
struct RepeatLimitTests {
    @Test("come a few at once and a few a second; the others are counted")
    func flood() {
        var limit = RepeatLimit()
        var written = 0
        // 10 000 in two seconds.
        for number: UInt64 in 0..<10_000 where limit.allows(at: 1_000_000_000 + number * 200_000) { written += 1 }
        #expect(written == 29 || written == 30)
        let (kept, keptSince) = (limit.takeKept(), limit.takeKept())
        #expect(kept == 10_000 - written && keptSince == 0)
    }

    @Test("are all written where they are rare")
    func rare() {
        var limit = RepeatLimit()
        let written = (0..<1000 as Range<UInt64>).filter { limit.allows(at: $0 * 200_000_000) }
        #expect(written.count == 1000)
    }
}

import Foundation
import Outside
import Testing

@Suite("Text from outside")
struct PrintableTextTests {
    @Test(
        "is written on one line, without a terminal's control sequences",
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

    @Test("is left unchanged if it is harmless", arguments: ["", "plain", "é ß 漢字 → µs", "C:\\x", "e\u{301}"])
    func harmless(text: String) {
        #expect(PrintableText.line(text) == text)
        #expect(PrintableText.json(text) == text)
    }

    @Test("is cut off if it is too long, with the number of bytes that are missing")
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
    @Test("are written a few at once and a few each second, and the others are counted")
    func flood() {
        var limit = RepeatLimit()
        var written = 0
        // There are 10 000 lines in two seconds.
        for number: UInt64 in 0..<10_000 where limit.allows(at: 1_000_000_000 + number * 200_000) { written += 1 }
        #expect(written == 29 || written == 30)
        let (kept, keptSince) = (limit.takeKept(), limit.takeKept())
        #expect(kept == 10_000 - written && keptSince == 0)
    }

    @Test("are written once a minute if they have the same text, and each time if they do not")
    func same() {
        var limit = RepeatLimit()
        let second: UInt64 = 1_000_000_000
        let written = (0..<150 as Range<UInt64>).filter { limit.allows("busy", at: $0 * second) }
        #expect(written == [0, 60, 120])
        #expect(limit.takeKept() == 147)
        let others = (150..<200 as Range<UInt64>).filter { limit.allows("busy \($0)", at: $0 * second) }
        #expect(others.count == 50)
        let events = (200..<250 as Range<UInt64>).filter { limit.allows(at: $0 * second) }
        #expect(events.count == 50)
    }

    @Test("are counted after a second, or as soon as the same text may be written again")
    func summaries() {
        var limit = RepeatLimit()
        let second: UInt64 = 1_000_000_000
        let isFirstWritten = limit.allows("busy", at: 5 * second)
        #expect(isFirstWritten)
        #expect(limit.summaryDelay(for: "busy", at: 17 * second) == 48 * second)
        #expect(limit.summaryDelay(for: "other", at: 17 * second) == second)
        #expect(limit.summaryDelay(for: nil, at: 17 * second) == second)
    }

    @Test("are all written if they are rare")
    func rare() {
        var limit = RepeatLimit()
        let written = (0..<1000 as Range<UInt64>).filter { limit.allows(at: $0 * 200_000_000) }
        #expect(written.count == 1000)
    }
}

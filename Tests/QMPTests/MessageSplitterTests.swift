import Testing

@testable import QMP

@Suite struct MessageSplitterTests {
    /// Each piece as a line: a text as itself, an error after "! ".
    private func pieces(_ stream: [UInt8], bytesAtATime: Int, maximumBytes: Int = 1024) -> [String] {
        var splitter = MessageSplitter(maximumBytes: maximumBytes)
        var unread: ArraySlice<UInt8> = []
        var lines: [String] = []
        for start in stride(from: 0, to: stream.count, by: bytesAtATime) {
            unread += stream[start..<min(start + bytesAtATime, stream.count)]
            while let piece = splitter.next(from: &unread) {
                switch piece {
                case .message(let text): lines.append(String(decoding: text, as: UTF8.self))
                case .malformed(let reason): lines.append("! \(reason)")
                case .tooLong: return lines + ["! too long"]
                }
            }
        }
        return lines
    }

    @Test(arguments: [
        (#"{"a":1}"#, [#"{"a":1}"#]),
        (#"{"a":{"b":[1,{}]}}{"c":2} {"d":3}"#, [#"{"a":{"b":[1,{}]}}"#, #"{"c":2}"#, #"{"d":3}"#]),
        ("{}\r\n\r\n \t{}\n[]", ["{}", "{}", "[]"]),
        (#"{"a":"}{\"\\"}{}"#, [#"{"a":"}{\"\\"}"#, "{}"]),
        ("{\"a\":\n1}", ["{\"a\":\n1}"]),
        ("true\n\"x\" {}", ["true", "\"x\"", "{}"]),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n{}", ["GET", "Host:", "{}"]),
        ("hello{}", ["hello", "{}"]),
        ("}\n{}", ["! stray '}'", "{}"]),
        ("{\"a\":[}\n{}", ["! stray '}'", "{}"]),
        ("{\"a\n{}", ["! control character in a string", "{}"]),
        ("{\"a\\\n{}", ["! control character in a string", "{}"]),
        ("\0\0\0\n{}", ["! stray byte 0x0", "{}"]),
        ("{\u{7F}{}", ["! stray byte 0x7f", "{}"]),
        ("{\"a\":1", []),
    ])
    func `texts are found in whatever pieces they arrive`(stream: String, expected: [String]) {
        for count in [1, 2, 3, 5, 1000] {
            #expect(pieces(Array(stream.utf8), bytesAtATime: count) == expected)
        }
    }

    @Test func `the byte 0xFF starts a new text`() {
        #expect(
            pieces(Array("{\"a\":\"b".utf8) + [0xFF] + Array("{}".utf8), bytesAtATime: 4) == [
                "! stray byte 0xff", "{}",
            ]
        )
    }

    @Test func `nesting is bounded`() {
        let deepest = JSONReader.maximumDepth
        let text = String(repeating: "[", count: deepest) + String(repeating: "]", count: deepest)
        #expect(pieces(Array(text.utf8), bytesAtATime: 1000) == [text])
        #expect((try? JSONReader.read(Array(text.utf8))) != nil)
        let deeper = Array("[\(text)]\n{}".utf8)
        #expect(pieces(deeper, bytesAtATime: 7) == ["! nested deeper than \(deepest) levels", "{}"])
    }

    @Test func `a text may be as long as the bound, but not longer`() {
        #expect(pieces(Array(#"{"a":1}"#.utf8), bytesAtATime: 3, maximumBytes: 7) == [#"{"a":1}"#])
        #expect(pieces(Array(#"{"a":12}"#.utf8), bytesAtATime: 3, maximumBytes: 7) == ["! too long"])
        #expect(pieces(Array("1234567890".utf8), bytesAtATime: 3, maximumBytes: 7) == ["! too long"])
    }

    @Test func `random bytes never trap`() {
        var generator = SystemRandomNumberGenerator()
        let alphabet = Array("{}[]\",:\\ \n1at".utf8) + [0, 0x7F, 0xC3, 0xFF]
        for _ in 0..<200 {
            let stream = (0..<300).map { _ in alphabet.randomElement(using: &generator) ?? 0 }
            let whole = pieces(stream, bytesAtATime: 300)
            #expect(pieces(stream, bytesAtATime: 7) == whole)
        }
    }
}

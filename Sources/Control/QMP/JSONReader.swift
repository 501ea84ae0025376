/// Reads one JSON text (RFC 8259) in time proportional to its length.
///
/// `JSONDecoder` is too slow for hostile texts: it finds the kind of each value by trial, and takes seconds for 64 KiB
/// of nested lists, during which no other client would be served.
struct JSONReader {
    /// The deepest nesting that is accepted: more than any message needs, and shallow enough for a recursive reader.
    static let maximumDepth = 128

    private let text: [UInt8]
    private var index = 0
    private var depth = 0

    /// Reads a text that is one value with optional white space around it.
    ///
    /// - Throws: `GenericError` that begins with "JSON parse error" and says what is wrong at which byte.
    static func read(_ text: [UInt8]) throws(QMPError) -> JSONValue {
        var reader = JSONReader(text: text)
        reader.skipSpace()
        let value = try reader.readValue()
        reader.skipSpace()
        guard reader.byte == nil else { throw reader.failure("unexpected \(reader.found)") }
        return value
    }

    private init(text: [UInt8]) {
        self.text = text
    }

    private var byte: UInt8? { index < text.count ? text[index] : nil }

    private var found: String {
        guard let byte else { return "end" }
        return (0x21...0x7E).contains(byte)
            ? "'\(Character(UnicodeScalar(byte)))'" : "byte 0x\(String(byte, radix: 16))"
    }

    private func failure(_ reason: String) -> QMPError {
        .generic("JSON parse error, \(reason) at byte \(index)")
    }

    private mutating func skipSpace() {
        while let byte, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D { index += 1 }
    }

    private mutating func take(_ expected: Unicode.Scalar) -> Bool {
        guard byte == UInt8(ascii: expected) else { return false }
        index += 1
        return true
    }

    private mutating func readValue() throws(QMPError) -> JSONValue {
        switch byte {
        case UInt8(ascii: "{"): return .object(try readObject())
        case UInt8(ascii: "["): return .array(try readArray())
        case UInt8(ascii: "\""): return .string(try readString())
        case UInt8(ascii: "-"), .some(UInt8(ascii: "0")...UInt8(ascii: "9")): return try readNumber()
        case UInt8(ascii: "t"): return try readWord("true", as: true)
        case UInt8(ascii: "f"): return try readWord("false", as: false)
        case UInt8(ascii: "n"): return try readWord("null", as: nil)
        default: throw failure("expecting a value, found \(found)")
        }
    }

    private mutating func readWord(_ word: StaticString, as value: JSONValue) throws(QMPError) -> JSONValue {
        let end = index + word.utf8CodeUnitCount
        let matches = word.withUTF8Buffer { end <= text.count && text[index..<end].elementsEqual($0) }
        guard matches else { throw failure("invalid keyword") }
        index = end
        return value
    }

    private mutating func enter() throws(QMPError) {
        guard depth < Self.maximumDepth else { throw failure("nested deeper than \(Self.maximumDepth) levels") }
        depth += 1
        index += 1
        skipSpace()
    }

    private mutating func readObject() throws(QMPError) -> [String: JSONValue] {
        try enter()
        defer { depth -= 1 }
        var members: [String: JSONValue] = [:]
        if take("}") { return members }
        while true {
            guard byte == UInt8(ascii: "\"") else { throw failure("expecting a member name, found \(found)") }
            let name = try readString()
            skipSpace()
            guard take(":") else { throw failure("expecting ':', found \(found)") }
            skipSpace()
            guard members.updateValue(try readValue(), forKey: name) == nil else {
                throw failure("duplicate member '\(name)'")
            }
            skipSpace()
            if take("}") { return members }
            guard take(",") else { throw failure("expecting ',' or '}', found \(found)") }
            skipSpace()
        }
    }

    private mutating func readArray() throws(QMPError) -> [JSONValue] {
        try enter()
        defer { depth -= 1 }
        var elements: [JSONValue] = []
        if take("]") { return elements }
        while true {
            elements.append(try readValue())
            skipSpace()
            if take("]") { return elements }
            guard take(",") else { throw failure("expecting ',' or ']', found \(found)") }
            skipSpace()
        }
    }
}

extension JSONReader {
    private mutating func skipDigits() -> Bool {
        let start = index
        while let byte, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { index += 1 }
        return index > start
    }

    private mutating func readNumber() throws(QMPError) -> JSONValue {
        let start = index
        var isWhole = true
        _ = take("-")
        // JSON allows no leading zeros: after a first digit 0 no further digit may follow.
        guard take("0") || skipDigits() else { throw failure("expecting a digit, found \(found)") }
        if take(".") {
            isWhole = false
            guard skipDigits() else { throw failure("expecting a digit, found \(found)") }
        }
        if take("e") || take("E") {
            isWhole = false
            _ = take("+") || take("-")
            guard skipDigits() else { throw failure("expecting a digit, found \(found)") }
        }
        let digits = String(decoding: text[start..<index], as: UTF8.self)
        if isWhole, let number = Int64(digits) { return .integer(number) }
        if isWhole, let number = UInt64(digits) { return .unsigned(number) }
        guard let number = Double(digits), number.isFinite else { throw failure("number out of range") }
        return .double(number)
    }

    private mutating func readString() throws(QMPError) -> String {
        index += 1
        var bytes: [UInt8] = []
        while true {
            let start = index
            while let byte, byte >= 0x20, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\") { index += 1 }
            bytes += text[start..<index]
            if take("\"") {
                guard let string = String(validating: bytes, as: UTF8.self) else {
                    throw failure("string is not valid UTF-8")
                }
                return string
            }
            guard take("\\") else { throw failure("expecting '\"', found \(found)") }
            bytes += Array(String(try readEscape()).utf8)
        }
    }

    private mutating func readEscape() throws(QMPError) -> Unicode.Scalar {
        guard let byte else { throw failure("expecting an escape, found end") }
        index += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): break
        default: throw failure("invalid escape")
        }
        // A character beyond 16 bits is written as two escapes, a high and a low surrogate.
        var code = try readHex()
        if (0xD800..<0xDC00).contains(code) {
            guard take("\\"), take("u") else { throw failure("unpaired surrogate") }
            let low = try readHex()
            guard (0xDC00..<0xE000).contains(low) else { throw failure("unpaired surrogate") }
            code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
        }
        guard let scalar = Unicode.Scalar(code) else { throw failure("unpaired surrogate") }
        return scalar
    }

    private mutating func readHex() throws(QMPError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let byte, let digit = Character(UnicodeScalar(byte)).hexDigitValue else {
                throw failure("expecting four hexadecimal digits")
            }
            value = value << 4 | UInt32(digit)
            index += 1
        }
        return value
    }
}

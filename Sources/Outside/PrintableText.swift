/// Text as it may be written to a terminal or into a log: one line, without anything that a terminal obeys or that makes
/// one character look like another.
public enum PrintableText {
    /// Bytes of UTF-8 that are kept of a line.
    public static let maxLineBytes = 4096

    /// The text with every control, format and separator character written in digits, such as `\n` or `\u{1b}`, and with
    /// what exceeds ``maxLineBytes`` counted instead of written.
    public static func line(_ text: String) -> String {
        guard text.utf8.count > maxLineBytes || text.unicodeScalars.contains(where: mustBeEscaped) else { return text }
        var line = String.UnicodeScalarView()
        var byteCount = 0
        var dropped = 0
        for scalar in text.unicodeScalars {
            let written = mustBeEscaped(scalar) ? escape(scalar) : String(scalar)
            if dropped > 0 || byteCount + written.utf8.count > maxLineBytes {
                dropped += UTF8.width(scalar)
            } else {
                byteCount += written.utf8.count
                line.append(contentsOf: written.unicodeScalars)
            }
        }
        return dropped == 0 ? String(line) : "\(String(line))… (\(dropped) more bytes)"
    }

    /// A JSON text with such characters written as JSON's own escapes; what the text means stays the same.
    ///
    /// In a JSON text on one line, such characters stand inside of strings only.
    public static func json(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: mustBeEscaped) else { return text }
        var line = ""
        for scalar in text.unicodeScalars {
            if mustBeEscaped(scalar) {
                for unit in String(scalar).utf16 { line += "\\u" + digits(unit, atLeast: 4) }
            } else {
                line.unicodeScalars.append(scalar)
            }
        }
        return line
    }

    private static func mustBeEscaped(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.isASCII { return scalar.value < 0x20 || scalar.value == 0x7f }
        switch scalar.properties.generalCategory {
        // Format holds the marks that turn the direction of writing around and those of no width.
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned: return true
        default: return scalar.properties.isDefaultIgnorableCodePoint
        }
    }

    private static func escape(_ scalar: Unicode.Scalar) -> String {
        switch scalar {
        case "\n": "\\n"
        case "\r": "\\r"
        case "\t": "\\t"
        default: "\\u{" + digits(scalar.value, atLeast: 1) + "}"
        }
    }

    private static func digits(_ value: some BinaryInteger, atLeast count: Int) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: max(0, count - digits.utf8.count)) + digits
    }
}

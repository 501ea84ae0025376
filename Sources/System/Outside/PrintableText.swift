/// Conversions of foreign text to a form that is safe in a terminal or a log.
///
/// The results have one line, and no character that a terminal obeys or that can disguise other characters.
package enum PrintableText {
    /// The most bytes of UTF-8 that are kept of a line.
    package static let maxLineBytes = 4096

    /// Escapes every control, format and separator character, as `\n` or `\u{1b}`, and cuts the text off.
    ///
    /// Characters beyond ``maxLineBytes`` are left out, and the line ends with their number of bytes.
    package static func line(_ text: String) -> String {
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

    /// Cuts a text off after a number of bytes of UTF-8.
    ///
    /// The text ends with the number of the bytes that are left out.
    package static func cut(_ text: String, to most: Int) -> String {
        guard text.utf8.count > most else { return text }
        var kept = String.UnicodeScalarView()
        var byteCount = 0
        for scalar in text.unicodeScalars {
            byteCount += UTF8.width(scalar)
            if byteCount > most { break }
            kept.append(scalar)
        }
        let cut = String(kept)
        return "\(cut)… (\(text.utf8.count - cut.utf8.count) more bytes)"
    }

    /// Writes the same characters of a JSON text as JSON escapes, so that its meaning stays the same.
    ///
    /// The text must be one line, since such characters then occur only inside of strings.
    package static func json(_ text: String) -> String {
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
        // The category `format` contains the characters that change the writing direction, and those of no width.
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

import Foundation
import Outside

/// Where this program writes: what it prints goes through here, so that no text from outside can forge a line of it or
/// move a terminal's cursor.
enum Terminal {
    /// Writes a line to standard error. Where nobody reads that any more, or its disk is full, it is lost: what is served
    /// goes on.
    static func say(_ line: String) {
        writeError("\(PrintableText.line(line))\n")
    }

    /// Writes over the last line on standard error, which is a terminal.
    static func sayInPlace(_ line: String) {
        // Back to the line's beginning, and clear to its end.
        writeError("\r\u{1b}[K\(PrintableText.line(line))")
    }

    /// Writes lines to standard output.
    static func show(_ lines: [String]) {
        for line in lines { print(PrintableText.line(line)) }
    }

    /// Writes a JSON text to standard output, on one line.
    static func show(json: String) {
        print(PrintableText.json(json))
    }

    /// Writes the line on standard output that whoever started this waits for. Not by `print`, which keeps lines back when
    /// nobody sees them on a terminal.
    static func ready(_ what: String) throws {
        try FileHandle.standardOutput.write(contentsOf: Data("ready \(PrintableText.line(what))\n".utf8))
    }

    private static func writeError(_ text: String) {
        try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
    }
}

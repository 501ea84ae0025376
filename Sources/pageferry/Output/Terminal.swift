import Foundation
import LinuxSystem
import Outside
import Synchronization

/// The standard output and standard error of this program.
///
/// Everything that the program prints passes through here, so that no text from outside can forge a line or move a
/// terminal's cursor.
enum Terminal {
    /// Writes a line to standard error.
    ///
    /// If the line cannot be written, for example to a full disk, it is lost, and the work continues.
    ///
    /// The word `error:` or `warning:` at the beginning of what is said is red or yellow on a terminal.
    static func say(_ text: String) { writeError("\(line(text))\n") }

    /// Makes the line that ``say(_:)`` writes, without its end.
    static func line(_ text: String) -> String { painted(PrintableText.line(text)) }

    private static let quiet = Atomic<Bool>(false)

    /// Whether progress is not printed.
    static var isQuiet: Bool { quiet.load(ordering: .relaxed) }

    /// Makes ``tell(_:)`` print nothing from now on.
    static func beQuiet() { quiet.store(true, ordering: .relaxed) }

    /// Writes a line about progress to standard error, unless the user wants none.
    static func tell(_ line: String) {
        if !isQuiet { say(line) }
    }

    /// A colour of a word.
    enum Paint: String {
        case red = "31"
        case green = "32"
        case yellow = "33"
    }

    /// A line that begins with a word in a colour.
    struct PaintedLine {
        let word: String
        let paint: Paint?
        let rest: String
    }

    /// Whether words on standard error, and on standard output, have colours: on a terminal that has some, unless the
    /// user wants none (https://no-color.org).
    private static let hasColours: (errors: Bool, output: Bool) = {
        let environment = ProcessInfo.processInfo.environment
        guard environment["NO_COLOR", default: ""].isEmpty, environment["TERM", default: "dumb"] != "dumb" else {
            return (false, false)
        }
        return (isatty(STDERR_FILENO) == 1, isatty(STDOUT_FILENO) == 1)
    }()

    /// Returns a word for standard output in a colour, or as it is.
    static func painted(_ word: String, _ paint: Paint) -> String {
        hasColours.output ? escaped(word, paint) : word
    }

    /// Returns a printable line for standard error with its first `error:` or `warning:` in a colour, or as it is.
    ///
    /// The word must be the first, or follow the name of the command.
    static func painted(_ line: String) -> String {
        guard hasColours.errors, let match = line.firstMatch(of: /^(pageferry [a-z-]+: )?(error:|warning:|critical:)/)
        else { return line }
        let word = match.2
        let paint = word == "warning:" ? Paint.yellow : .red
        return line.replacing(word, with: escaped(String(word), paint), maxReplacements: 1)
    }

    private static func escaped(_ word: String, _ paint: Paint) -> String {
        "\u{1b}[1;\(paint.rawValue)m\(word)\u{1b}[0m"
    }

    /// The lines that ``log(_:reportingLost:)`` has dropped since the last one that it has written.
    private static let dropped = Mutex(0)

    /// Writes a line to standard error if there is room, and drops and counts the line otherwise.
    ///
    /// A pipe whose reader has stopped must not stop the work that a line is about.
    ///
    /// - Parameters:
    ///   - line: the line, in a form that is safe to print.
    ///   - report: makes the line that reports how many lines were dropped.
    static func log(_ line: String, reportingLost report: (_ count: Int) -> String) {
        dropped.withLock { dropped in
            if dropped > 0 {
                guard StandardError.writeNow(Array("\(report(dropped))\n".utf8)) else {
                    dropped += 1
                    return LogRing.shared.noteDrop()
                }
                dropped = 0
            }
            guard !StandardError.writeNow(Array("\(line)\n".utf8)) else { return }
            dropped += 1
            LogRing.shared.noteDrop()
        }
    }

    /// Overwrites the last line on standard error, which must be a terminal.
    static func sayInPlace(_ line: String) {
        // Move to the beginning of the line, and clear it.
        writeError("\r\u{1b}[K\(PrintableText.line(line))")
    }

    /// What standard output, a terminal, shows.
    enum Screen: String {
        /// Another screen than the one with the shell's lines, without a cursor.
        case other = "\u{1b}[?1049h\u{1b}[?25l"
        case own = "\u{1b}[?25h\u{1b}[?1049l"
    }

    /// Switches standard output, which must be a terminal, to a screen.
    static func show(_ screen: Screen) { write(screen.rawValue) }

    /// Draws lines from the first row of standard output, which must be a terminal, in place of all others.
    static func redraw(_ lines: [String]) {
        // Go to the first row, clear each line behind its text, and then clear the rest of the screen.
        let text = lines.map { PrintableText.line($0) + "\u{1b}[K" }.joined(separator: "\r\n")
        write("\u{1b}[H\(text)\u{1b}[J")
    }

    /// Writes lines to standard output.
    static func show(_ lines: [String]) {
        write(lines.map { PrintableText.line($0) + "\n" }.joined())
    }

    /// Writes lines to standard output, each of which begins with a word in a colour.
    static func show(_ lines: [PaintedLine]) {
        write(
            lines.map { line in
                let word = PrintableText.line(line.word)
                return (line.paint.map { painted(word, $0) } ?? word) + PrintableText.line(line.rest) + "\n"
            }.joined()
        )
    }

    /// Writes a JSON text to standard output, on one line.
    static func show(json: String) {
        write(PrintableText.json(json) + "\n")
    }

    /// Writes the line `ready …` to standard output, for which the starting process may wait.
    static func ready(_ what: String) {
        show(["ready \(what)"])
    }

    private static let isOutputLost = Atomic<Bool>(false)

    /// Whether a write to standard output has failed.
    ///
    /// The failure was reported on standard error, and nothing more is written to standard output. The work continues,
    /// and the exit status reports the failure.
    static var hasLostOutput: Bool { isOutputLost.load(ordering: .relaxed) }

    private static func write(_ text: String) {
        guard !hasLostOutput else { return }
        do throws(SystemError) {
            try StandardOutput.write(Array(text.utf8))
        } catch {
            isOutputLost.store(true, ordering: .relaxed)
            say("pageferry: \(error)")
        }
    }

    private static func writeError(_ text: String) {
        // There is no other place to report that standard error fails.
        try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
    }
}

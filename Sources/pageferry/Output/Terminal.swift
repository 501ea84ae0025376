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
    static func say(_ line: String) {
        writeError("\(PrintableText.line(line))\n")
    }

    /// The lines that ``log(_:)`` has dropped since the last one that it has written.
    private static let dropped = Mutex(0)

    /// Writes a line to standard error if there is room, and drops and counts the line otherwise.
    ///
    /// A pipe whose reader has stopped must not stop the work that a line is about.
    static func log(_ line: String) {
        dropped.withLock { dropped in
            if dropped > 0 {
                let told = "pageferry: \(dropped) log lines were dropped: standard error was not read"
                guard StandardError.writeNow(Array("\(told)\n".utf8)) else {
                    dropped += 1
                    return LogRing.shared.noteDrop()
                }
                dropped = 0
            }
            guard !StandardError.writeNow(Array("\(PrintableText.line(line))\n".utf8)) else { return }
            dropped += 1
            LogRing.shared.noteDrop()
        }
    }

    /// Overwrites the last line on standard error, which must be a terminal.
    static func sayInPlace(_ line: String) {
        // Move to the beginning of the line, and clear it.
        writeError("\r\u{1b}[K\(PrintableText.line(line))")
    }

    /// Writes lines to standard output.
    static func show(_ lines: [String]) {
        write(lines.map { PrintableText.line($0) + "\n" }.joined())
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

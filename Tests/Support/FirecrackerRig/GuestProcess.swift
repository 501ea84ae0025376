import Foundation
import TestProcess

/// A process whose guest reads commands and prints marks, as described in `Tests/Fixtures/firecracker-guest.S`.
package final class GuestProcess: Sendable {
    /// A command to a guest, one byte each.
    package enum Command: String, Sendable {
        /// Make one pass after another, with a mark `pass` for each.
        case run = "r"
        /// Do nothing; the mark is `idle`.
        case stop = "s"
        /// Make one pass; the mark is `pass`.
        case pass = "p"
        /// Read the working set; the mark is `set`.
        case workingSet = "w"
        /// Give the balloon 256 more pages; the mark is `inflated`.
        case inflate = "i"
        /// Give the balloon pages one by one while other pages are touched; the mark is `inflated`. Only for the
        /// stand-in.
        case inflateBesideFaults = "I"
        /// Touch pages in order, as in the beginning.
        case ascending = "a"
        /// Touch pages in an order that looks random.
        case dispersed = "d"
    }

    private let process: TestProcess
    /// The process's standard input, a pipe, since Firecracker reads no input from a socket.
    private let input: TestPipe
    private let console: LineReader
    let log: LineReader
    private let name: String

    /// Starts a program whose input and output are the guest's, and returns at once.
    init(_ path: String, _ arguments: [String]) throws {
        name = URL(fileURLWithPath: path).lastPathComponent
        input = try TestPipe()
        let (output, errors) = (try TestPipe(), try TestPipe())
        process = try TestProcess(
            path,
            arguments,
            input: input.reader,
            output: output.writer,
            errors: errors.writer
        )
        output.closeWriter()
        errors.closeWriter()
        console = LineReader(output)
        log = LineReader(errors)
    }

    deinit {
        end()
    }

    /// The process id.
    package var pid: Int32 { process.pid }

    /// Sends a command, which the guest reads after the present one.
    package func send(_ command: Command) {
        // The pipe's other end is open here too, so that writing after the process has ended raises no SIGPIPE.
        let byte = Array(command.rawValue.utf8)
        _ = write(input.writer, byte, byte.count)
    }

    /// Waits for a mark, and skips other marks.
    ///
    /// - Parameter mark: `filled`, `pass`, `set`, `idle` or `inflated`.
    /// - Returns: the number after the mark, or 0 if there is none.
    /// - Throws: ``RigFailure`` if the guest finds a wrong page, ends, or does not print the mark within `seconds`.
    @discardableResult
    package func wait(for mark: String, seconds: Double = 30) throws -> UInt64 {
        try words(after: mark, seconds: seconds).first.flatMap { UInt64($0, radix: 16) } ?? 0
    }

    func words(after mark: String, seconds: Double = 30) throws -> [Substring] {
        let deadline = Date(timeIntervalSinceNow: seconds)
        while true {
            let line: String
            do {
                line = try console.line(before: deadline)
            } catch {
                throw RigFailure("\(name) printed no '\(mark)': \(error)\n\(log.rest())")
            }
            let words = line.split(separator: " ")
            if words.first == "bad" { throw RigFailure("\(name) found a wrong page: \(line)") }
            if words.first == mark[...] { return Array(words.dropFirst()) }
        }
    }

    /// Discards the marks that the guest has printed so far.
    package func forgetMarks() {
        console.discard()
    }

    /// Sends a command and waits for the mark that reports its end.
    @discardableResult
    package func perform(_ command: Command, seconds: Double = 30) throws -> UInt64 {
        send(command)
        switch command {
        case .run, .pass: return try wait(for: "pass", seconds: seconds)
        case .stop: return try wait(for: "idle", seconds: seconds)
        case .workingSet: return try wait(for: "set", seconds: seconds)
        case .inflate, .inflateBesideFaults: return try wait(for: "inflated", seconds: seconds)
        case .ascending, .dispersed: return 0
        }
    }

    /// Waits until the process has exited by itself.
    ///
    /// - Returns: the exit status, or the signal that killed the process.
    package func waitForEnd(seconds: Double = 30) throws -> Int32 {
        guard let end = process.wait(seconds: seconds) else {
            throw RigFailure("\(name) did not end within \(seconds) s\n\(log.rest())")
        }
        return end.status
    }

    /// Kills the process, if it still runs.
    package func end() { process.kill() }
}

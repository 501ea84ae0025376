import Foundation
import TestProcess

/// A process whose guest takes commands and prints marks, as `Tests/Fixtures/firecracker-guest.S` says.
public final class GuestProcess: Sendable {
    /// What a guest can be told, by one byte each.
    public enum Command: String, Sendable {
        /// One pass after another, a mark `pass` for each.
        case run = "r"
        /// Nothing; its mark is `idle`.
        case stop = "s"
        /// One pass; its mark is `pass`.
        case pass = "p"
        /// The working set, read only; its mark is `set`.
        case workingSet = "w"
        /// Give the balloon 256 pages more; its mark is `inflated`.
        case inflate = "i"
        /// The stand-in only: the same page by page, while other pages are touched; its mark is `inflated`.
        case inflateBesideFaults = "I"
        /// Touch pages in order, as at first.
        case ascending = "a"
        /// Touch pages in an order that looks random.
        case dispersed = "d"
    }

    private let process: TestProcess
    /// Its input is a pipe: Firecracker reads none from a socket.
    private let input: TestPipe
    private let console: LineReader
    let log: LineReader
    private let name: String

    /// Starts a program whose input and output are the guest's, and waits for nothing.
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

    /// Its process.
    public var pid: Int32 { process.pid }

    /// Tells the guest what to do after what it does.
    public func send(_ command: Command) {
        // The pipe's other end is open here too: nobody is signalled of a process that has ended.
        let byte = Array(command.rawValue.utf8)
        _ = write(input.writer, byte, byte.count)
    }

    /// Waits for a mark, passing over other ones.
    ///
    /// - Parameter mark: `filled`, `pass`, `set`, `idle` or `inflated`.
    /// - Returns: the number that stands beside it, 0 where none does.
    /// - Throws: ``RigFailure`` if the guest finds a wrong page, ends, or does not print it within `seconds`.
    @discardableResult
    public func wait(for mark: String, seconds: Double = 30) throws -> UInt64 {
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

    /// Forgets the marks that it has printed until now.
    public func forgetMarks() {
        console.discard()
    }

    /// Tells the guest what to do and waits for the mark that says it has.
    @discardableResult
    public func perform(_ command: Command, seconds: Double = 30) throws -> UInt64 {
        send(command)
        switch command {
        case .run, .pass: return try wait(for: "pass", seconds: seconds)
        case .stop: return try wait(for: "idle", seconds: seconds)
        case .workingSet: return try wait(for: "set", seconds: seconds)
        case .inflate, .inflateBesideFaults: return try wait(for: "inflated", seconds: seconds)
        case .ascending, .dispersed: return 0
        }
    }

    /// Waits until the process has ended by itself.
    ///
    /// - Returns: its exit status, or the signal that ended it.
    public func waitForEnd(seconds: Double = 30) throws -> Int32 {
        guard let end = process.wait(seconds: seconds) else {
            throw RigFailure("\(name) did not end within \(seconds) s\n\(log.rest())")
        }
        return end.status
    }

    /// Ends the process at once, if it still runs.
    public func end() { process.kill() }
}

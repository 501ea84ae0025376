import Foundation
import Synchronization
import TestProcess

/// A program that a test runs, with what it printed.
struct Finished: CustomStringConvertible {
    let status: Int32
    let output: String
    let errors: String

    var description: String { "exit \(status)\n\(output)\n\(errors)" }
}

/// Programs that the tests run.
///
/// A program has exited when the function that runs it returns or throws.
enum Executable {
    /// The built `pageferry`: the one beside the test bundle, or the one that PAGEFERRY names.
    static let pageferry: String = {
        if let named = ProcessInfo.processInfo.environment["PAGEFERRY"] { return named }
        let bundle = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        return bundle.deletingLastPathComponent().appendingPathComponent("pageferry").path
    }()

    /// Whether PAGEFERRY names a release build.
    static let isReleaseBuild = pageferry.contains("/release/")

    /// Runs a program until it exits, or kills it after `seconds`.
    static func run(_ path: String, _ arguments: [String], seconds: Double = 120) throws -> Finished {
        let running = try Running(path, arguments)
        defer { running.end() }
        return try running.finish(seconds: seconds)
    }

    /// Runs `pageferry` until it exits.
    static func pageferry(_ arguments: String..., seconds: Double = 120) throws -> Finished {
        try run(pageferry, arguments, seconds: seconds)
    }
}

extension Executable {
    /// Moves a workload from one agent to another.
    static func migrate(_ source: AgentProcess, _ destination: AgentProcess, _ options: String...) throws -> Finished {
        let sockets = ["--source", source.socket, "--destination", destination.socket]
        return try run(pageferry, ["migrate"] + sockets + options)
    }
}

/// A program that runs beside a test.
final class Running: Sendable {
    private let process: TestProcess
    private let output: Collected
    private let errors: Collected
    let name: String

    /// The text that has arrived through a pipe so far; each piece wakes those who wait for a line.
    private final class Collected: Sendable {
        private struct State {
            var text = ""
            var isClosed = false
        }

        private let state = Mutex(State())
        private let condition = NSCondition()

        init(_ pipe: TestPipe) {
            Thread.detachNewThread { [self] in
                while let piece = pipe.read() { change { $0.text += String(decoding: piece, as: UTF8.self) } }
                change { $0.isClosed = true }
            }
        }

        private func change(_ body: (inout State) -> Void) {
            condition.lock()
            defer { condition.unlock() }
            state.withLock { body(&$0) }
            condition.broadcast()
        }

        var text: String { state.withLock { $0.text } }

        func wait(until deadline: Date, for isDone: (_ text: String, _ isClosed: Bool) -> Bool) -> Bool {
            condition.lock()
            defer { condition.unlock() }
            while true {
                let (text, isClosed) = state.withLock { ($0.text, $0.isClosed) }
                if isDone(text, isClosed) { return true }
                if isClosed || !condition.wait(until: deadline) { return false }
            }
        }
    }

    /// Starts a program.
    init(_ path: String, _ arguments: [String]) throws {
        name = ([path] + arguments).joined(separator: " ")
        let (output, errors) = (try TestPipe(), try TestPipe())
        process = try TestProcess(path, arguments, output: output.writer, errors: errors.writer)
        output.closeWriter()
        errors.closeWriter()
        self.output = Collected(output)
        self.errors = Collected(errors)
    }

    var pid: Int32 { process.pid }
    var errorText: String { errors.text }
    var outputText: String { output.text }

    /// Waits until the program has printed a line that holds `text`, and returns the line.
    func line(holding text: String, seconds: Double = 30) throws -> String {
        try line(holding: text, in: output, seconds: seconds)
    }

    /// Waits for a line on standard error that holds `text`, and returns the line.
    ///
    /// - Parameter number: which of the lines that hold `text`, from 1.
    func errorLine(holding text: String, number: Int = 1, seconds: Double = 30) throws -> String {
        try line(holding: text, number: number, in: errors, seconds: seconds)
    }

    private func line(
        holding text: String,
        number: Int = 1,
        in output: Collected,
        seconds: Double
    ) throws -> String {
        func find(_ all: String) -> String? {
            all.split(separator: "\n").map(String.init).filter { $0.contains(text) }.dropFirst(number - 1).first
        }
        let found = output.wait(until: Date(timeIntervalSinceNow: seconds)) { all, _ in
            // Only whole lines count.
            find(String(all[..<(all.lastIndex(of: "\n") ?? all.startIndex)])) != nil
        }
        guard found, let line = find(output.text) else {
            throw TestFailure("\(name) printed no line with '\(text)':\n\(self.output.text)\n\(errors.text)")
        }
        return line
    }

    /// Waits until the program's output is as `isThere` wants it, and returns the output.
    ///
    /// - Parameter what: what is waited for, named in an error.
    func output(holding what: String, seconds: Double = 30, _ isThere: (_ output: String) -> Bool) throws -> String {
        guard output.wait(until: Date(timeIntervalSinceNow: seconds), for: { all, _ in isThere(all) }) else {
            throw TestFailure("\(name) did not print \(what):\n\(output.text)\n\(errors.text)")
        }
        return output.text
    }

    /// Waits for the program's end.
    func finish(seconds: Double = 60) throws -> Finished {
        guard let end = process.wait(seconds: seconds) else {
            throw TestFailure("\(name) did not end within \(seconds) s:\n\(output.text)\n\(errors.text)")
        }
        // A child of the program may still hold the pipes. The program's own output has arrived, even if the end of the
        // pipes has not.
        let deadline = Date(timeIntervalSinceNow: 1)
        _ = output.wait(until: deadline, for: { _, isClosed in isClosed })
        _ = errors.wait(until: deadline, for: { _, isClosed in isClosed })
        return Finished(status: end.status, output: output.text, errors: errors.text)
    }

    /// Kills the program, if it still runs.
    func end() { process.kill() }
}

/// The reason why a test cannot continue.
struct TestFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}

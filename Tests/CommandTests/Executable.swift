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

/// Programs the tests run. All of them have ended when the function that ran them returns or throws.
enum Executable {
    /// The built `pageferry`: beside the test bundle, or what PAGEFERRY names.
    static let pageferry: String = {
        if let named = ProcessInfo.processInfo.environment["PAGEFERRY"] { return named }
        let bundle = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        return bundle.deletingLastPathComponent().appendingPathComponent("pageferry").path
    }()

    /// Whether PAGEFERRY names a program that was built to be fast.
    static let isReleaseBuild = pageferry.contains("/release/")

    /// Runs a program to its end, or ends it after `seconds`.
    static func run(_ path: String, _ arguments: [String], seconds: Double = 120) throws -> Finished {
        let running = try Running(path, arguments)
        defer { running.end() }
        return try running.finish(seconds: seconds)
    }

    /// Runs `pageferry` to its end.
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

    /// What a pipe has brought so far; whoever waits for a line is woken by each piece.
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

    /// Waits until a line that holds `text` was printed, and returns it.
    func line(holding text: String, seconds: Double = 30) throws -> String {
        try line(holding: text, in: output, seconds: seconds)
    }

    /// The same for what it prints as errors.
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

    /// Waits for the program's end.
    func finish(seconds: Double = 60) throws -> Finished {
        guard let end = process.wait(seconds: seconds) else {
            throw TestFailure("\(name) did not end within \(seconds) s:\n\(output.text)\n\(errors.text)")
        }
        // A program that this one has started may hold the pipes: what this one wrote is there, their end may not be.
        let deadline = Date(timeIntervalSinceNow: 1)
        _ = output.wait(until: deadline, for: { _, isClosed in isClosed })
        _ = errors.wait(until: deadline, for: { _, isClosed in isClosed })
        return Finished(status: end.status, output: output.text, errors: errors.text)
    }

    /// Ends the program at once, if it still runs.
    func end() { process.kill() }
}

/// Why a test cannot go on.
struct TestFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}

import Glibc
import TestProcess

/// A process whose output goes to a file, and which can be stopped and killed at any moment.
final class Spawned: Sendable {
    let logPath: String
    private let process: TestProcess

    init(_ arguments: [String], log: String) throws {
        logPath = log
        let output = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard output >= 0 else { throw TestFailure("cannot open \(log): errno \(errno)") }
        defer { close(output) }
        process = try TestProcess(arguments[0], Array(arguments.dropFirst()), output: output, errors: output)
    }

    var pid: pid_t { process.pid }

    /// The exit status, or 128 and the signal; nil while it lives.
    var exitStatus: Int32? { process.end.map(Spawned.status) }

    /// When it was seen to have ended, on the monotonic clock.
    var deathTime: UInt64? { process.end?.time }

    var isAlive: Bool { exitStatus == nil }

    /// Waits for its end, and returns the exit status.
    func wait(seconds: Double) -> Int32? { process.wait(seconds: seconds).map(Spawned.status) }

    func signal(_ number: Int32) { process.signal(number) }

    /// Ends it at once, if it still lives.
    func end() { process.kill() }

    private static func status(_ end: TestProcess.End) -> Int32 { end.isSignalled ? 128 + end.status : end.status }
}

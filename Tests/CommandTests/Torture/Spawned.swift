import Foundation
import Glibc
import LinuxSystem
import Synchronization
import TestProcess

/// A process whose output goes to a file, and that can be stopped and killed at any moment.
final class Spawned: Sendable {
    let logPath: String
    private let process: TestProcess
    /// When the process was killed, on the monotonic clock.
    ///
    /// The process may exist long after that, in a write that waits.
    private let killTime = Mutex<UInt64?>(nil)

    init(_ arguments: [String], log: String) throws {
        logPath = log
        let output = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard output >= 0 else { throw TestFailure("cannot open \(log): errno \(errno)") }
        defer { close(output) }
        process = try TestProcess(arguments[0], Array(arguments.dropFirst()), output: output, errors: output)
    }

    var pid: pid_t { process.pid }

    /// The exit status, or 128 plus the signal; nil while the process exists.
    var exitStatus: Int32? { process.end.map(Spawned.status) }

    /// When the process was killed or was found to have exited, on the monotonic clock.
    var deathTime: UInt64? { killTime.withLock(\.self) ?? process.end?.time }

    var isAlive: Bool { deathTime == nil }

    /// The output of the process.
    var text: String { (try? String(contentsOfFile: logPath, encoding: .utf8)) ?? "" }

    /// Waits until the process exits, and returns the exit status.
    func wait(seconds: Double) -> Int32? { process.wait(seconds: seconds).map(Spawned.status) }

    func signal(_ number: Int32) { process.signal(number) }

    /// Kills the process, if it still exists, without waiting until it is gone.
    func kill() {
        guard process.end == nil else { return }
        process.signal(SIGKILL)
        killTime.withLock { $0 = $0 ?? MonotonicClock.now() }
    }

    /// Kills the process, if it still exists, and waits until it is gone.
    func end() {
        kill()
        process.kill()
    }

    private static func status(_ end: TestProcess.End) -> Int32 { end.isSignalled ? 128 + end.status : end.status }
}

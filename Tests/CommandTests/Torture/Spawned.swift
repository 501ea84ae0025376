import Glibc
import LinuxSystem

/// A process whose output goes to a file, and which can be stopped and killed at any moment.
final class Spawned {
    let pid: pid_t
    let logPath: String
    private var status: Int32?
    /// When it was seen to have ended, on the monotonic clock.
    private(set) var deathTime: UInt64?

    init(_ arguments: [String], log: String) throws {
        logPath = log
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { words.forEach { free($0) } }
        var pid: pid_t = 0
        let result = posix_spawn(&pid, arguments[0], &actions, nil, &words, environ)
        guard result == 0 else { throw TestFailure("cannot start \(arguments[0]): errno \(result)") }
        self.pid = pid
    }

    /// The exit status, or 128 and the signal; nil while it lives.
    func exitStatus() -> Int32? {
        if let status { return status }
        var raw: Int32 = 0
        guard waitpid(pid, &raw, WNOHANG) == pid else { return nil }
        deathTime = MonotonicClock.now()
        status = raw & 0x7f == 0 ? raw >> 8 & 0xff : 128 + (raw & 0x7f)
        return status
    }

    var isAlive: Bool { exitStatus() == nil }

    /// Waits for its end.
    func wait(seconds: Double) -> Int32? {
        let deadline = MonotonicClock.now() + UInt64(seconds * 1e9)
        while exitStatus() == nil, MonotonicClock.now() < deadline { usleep(1000) }
        return exitStatus()
    }

    func signal(_ number: Int32) {
        if isAlive { kill(pid, number) }
    }

    /// Ends it at once, if it still lives.
    func end() {
        signal(SIGKILL)
        while exitStatus() == nil { usleep(200) }
    }

    deinit {
        end()
    }

    /// Runs a program to its end.
    static func run(_ arguments: [String], log: String) throws {
        let process = try Spawned(arguments, log: log)
        guard let status = process.wait(seconds: 10) else {
            throw TestFailure("\(arguments.joined(separator: " ")) does not end")
        }
        guard status == 0 else { throw TestFailure("\(arguments.joined(separator: " ")) ended with \(status)") }
    }
}

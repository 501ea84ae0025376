import Dispatch
import Glibc
import LinuxSystem
import Synchronization

/// A process whose output goes to a file, and which can be stopped and killed at any moment.
final class Spawned: Sendable {
    private struct End {
        let status: Int32
        let time: UInt64
    }

    /// Set under the lock in which the process is reaped, so that nobody signals another of the same id.
    private final class Watch: Sendable {
        let end = Mutex<End?>(nil)
        let hasEnded = DispatchSemaphore(value: 0)
    }

    let pid: pid_t
    let logPath: String
    private let watch = Watch()
    private let thread: JoinedThread

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
        thread = try JoinedThread(name: "watch") { [watch, pid] in
            var information = siginfo_t()
            while waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT) != 0, errno == EINTR {}
            watch.end.withLock { end in
                var raw: Int32 = 0
                waitpid(pid, &raw, 0)
                let status = raw & 0x7f == 0 ? raw >> 8 & 0xff : 128 + (raw & 0x7f)
                end = End(status: status, time: MonotonicClock.now())
            }
            watch.hasEnded.signal()
        }
    }

    /// The exit status, or 128 and the signal; nil while it lives.
    var exitStatus: Int32? { watch.end.withLock { $0?.status } }

    /// When it was seen to have ended, on the monotonic clock.
    var deathTime: UInt64? { watch.end.withLock { $0?.time } }

    var isAlive: Bool { exitStatus == nil }

    /// Waits for its end, and returns the exit status.
    func wait(seconds: Double) -> Int32? {
        if watch.hasEnded.wait(timeout: .now() + seconds) == .success { watch.hasEnded.signal() }
        return exitStatus
    }

    func signal(_ number: Int32) {
        watch.end.withLock { end in
            if end == nil { kill(pid, number) }
        }
    }

    /// Ends it at once, if it still lives.
    func end() {
        signal(SIGKILL)
        watch.hasEnded.wait()
        watch.hasEnded.signal()
    }

    deinit {
        // The thread that is joined then ends with the process.
        signal(SIGKILL)
    }
}

import Dispatch
public import Glibc
import LinuxSystem
import Synchronization

/// A process that a test starts, in a process group of its own, with signals as at login.
///
/// Foundation's `Process` reads past the end of what it lists of `/proc/self/fd`. That ends a process which has more than
/// some thousand descriptors open, as one that runs many tests at once has.
public final class TestProcess: Sendable {
    /// How a process has ended.
    public struct End: Sendable {
        /// The exit status, or the signal.
        public let status: Int32
        /// Whether a signal has ended it.
        public let isSignalled: Bool
        /// When that was seen, in nanoseconds of the monotonic clock.
        public let time: UInt64
    }

    /// Set under the lock in which the process is reaped, so that nobody signals another of the same id.
    private final class Watch: Sendable {
        let end = Mutex<End?>(nil)
        let hasEnded = DispatchSemaphore(value: 0)
    }

    /// Its number.
    public let pid: pid_t
    private let watch = Watch()
    private let thread: JoinedThread

    /// Starts a program.
    ///
    /// - Parameters:
    ///   - input: what it reads as standard input; nil for nothing.
    ///   - output: where its standard output goes; nil for where that of this process does. The same of `errors`.
    public init(
        _ path: String,
        _ arguments: [String],
        input: CInt? = nil,
        output: CInt? = nil,
        errors: CInt? = nil
    ) throws {
        let pid = try Spawn.start(path, [path] + arguments, closingFrom: STDERR_FILENO + 1) { actions in
            for (descriptor, number) in [(input, STDIN_FILENO), (output, STDOUT_FILENO), (errors, STDERR_FILENO)] {
                if let descriptor { posix_spawn_file_actions_adddup2(&actions, descriptor, number) }
            }
        }
        self.pid = pid
        thread = try JoinedThread(name: "watch") { [watch] in
            var information = siginfo_t()
            while waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT) != 0, errno == EINTR {}
            watch.end.withLock { end in
                var raw: Int32 = 0
                waitpid(pid, &raw, 0)
                let signal = raw & 0x7f
                end = End(
                    status: signal == 0 ? raw >> 8 & 0xff : signal,
                    isSignalled: signal != 0,
                    time: MonotonicClock.now()
                )
            }
            watch.hasEnded.signal()
        }
    }

    /// Runs a program to its end.
    ///
    /// - Parameter takesErrors: whether what it prints as errors is returned beside its output.
    /// - Returns: its exit status, or the signal that ended it, and what it printed.
    public static func run(
        _ path: String,
        _ arguments: [String],
        takesErrors: Bool = false
    ) throws -> (status: Int32, output: String) {
        let pipe = try TestPipe()
        let process = try TestProcess(path, arguments, output: pipe.writer, errors: takesErrors ? pipe.writer : nil)
        pipe.closeWriter()
        var output: [UInt8] = []
        while let piece = pipe.read() { output += piece }
        return (process.wait()?.status ?? 0, String(decoding: output, as: UTF8.self))
    }

    /// How it has ended; nil while it lives.
    public var end: End? { watch.end.withLock(\.self) }

    /// Waits for its end.
    ///
    /// - Returns: nil if it has not ended in time.
    public func wait(seconds: Double = .infinity) -> End? {
        let deadline = seconds.isFinite ? DispatchTime.now() + seconds : .distantFuture
        if watch.hasEnded.wait(timeout: deadline) == .success { watch.hasEnded.signal() }
        return end
    }

    /// Sends a signal, if it still lives.
    public func signal(_ number: Int32) {
        watch.end.withLock { end in
            if end == nil { Glibc.kill(pid, number) }
        }
    }

    /// Ends it at once, if it still lives.
    public func kill() {
        signal(SIGKILL)
        _ = wait()
    }

    deinit {
        // The thread that is joined then ends with the process.
        signal(SIGKILL)
    }
}

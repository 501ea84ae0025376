import Dispatch
package import Glibc
import LinuxSystem
import Synchronization

/// A process that a test starts, in a process group of its own and with default signals.
///
/// Foundation's `Process` reads past the end of its buffer for `/proc/self/fd`. A process with more than some thousand
/// open descriptors then crashes, and a process that runs many tests at once has as many.
package final class TestProcess: Sendable {
    /// The end of a process.
    package struct End: Sendable {
        /// The exit status, or the number of the signal.
        package let status: Int32
        /// Whether a signal has killed the process.
        package let isSignalled: Bool
        /// When the end was noticed, in nanoseconds of the monotonic clock.
        package let time: UInt64
    }

    /// The end, set under the lock under which the process is reaped, so that no other process of the same id is
    /// signalled.
    private final class Watch: Sendable {
        let end = Mutex<End?>(nil)
        let hasEnded = DispatchSemaphore(value: 0)
    }

    /// The process id.
    package let pid: pid_t
    private let watch = Watch()
    private let thread: JoinedThread

    /// Starts a program.
    ///
    /// - Parameters:
    ///   - input: the descriptor of standard input; nil for an empty input.
    ///   - output: the descriptor of standard output; nil for that of this process.
    ///   - errors: the descriptor of standard error; nil for that of this process.
    package init(
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

    /// Runs a program until it exits.
    ///
    /// - Parameter takesErrors: whether the returned output includes standard error.
    /// - Returns: the exit status, or the signal that killed the program, and the output.
    package static func run(
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

    /// The end of the process; nil while it exists.
    package var end: End? { watch.end.withLock(\.self) }

    /// Waits until the process ends.
    ///
    /// - Returns: nil if the process has not ended in time.
    package func wait(seconds: Double = .infinity) -> End? {
        let deadline = seconds.isFinite ? DispatchTime.now() + seconds : .distantFuture
        if watch.hasEnded.wait(timeout: deadline) == .success { watch.hasEnded.signal() }
        return end
    }

    /// Sends a signal, if the process still exists.
    package func signal(_ number: Int32) {
        watch.end.withLock { end in
            if end == nil { Glibc.kill(pid, number) }
        }
    }

    /// Kills the process, if it still exists, and waits until it has ended.
    package func kill() {
        signal(SIGKILL)
        _ = wait()
    }

    deinit {
        // The watching thread, which is joined afterwards, ends with the process.
        signal(SIGKILL)
    }
}

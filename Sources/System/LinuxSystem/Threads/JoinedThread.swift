import CShims
import Glibc
import SystemPackage

/// A named thread that is always joined.
package struct JoinedThread: ~Copyable, Sendable {
    private let thread: pthread_t

    private final class Start: Sendable {
        let name: String
        let pace: Pace
        let body: @Sendable () -> Void
        init(name: String, pace: Pace, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.pace = pace
            self.body = body
        }
    }

    /// The scheduler slice: how long a thread runs at a time while others want its processor (`sched_runtime` of
    /// SCHED_OTHER).
    ///
    /// The slice does not change a thread's share of the processors. From Linux 6.12 on, a thread that wakes up
    /// preempts a running thread whose slice is longer.
    package enum Pace: Sendable {
        /// The kernel's default, usually a few milliseconds.
        case usual
        /// 100 µs, the kernel's minimum: for threads that work briefly while others wait for them. Such threads also wake
        /// up at the very end of a timed wait, and not up to 50 µs later.
        case urgent
        /// 300 µs: for threads that work for long beside urgent ones.
        case background

        /// The kernel's default slack of timers, in nanoseconds (PR_SET_TIMERSLACK of prctl(2)).
        fileprivate static let usualSlack: UInt = 50_000

        /// The slice in nanoseconds; nil keeps the kernel's default.
        fileprivate var slice: UInt64? {
            switch self {
            case .usual: nil
            case .urgent: 100_000
            case .background: 300_000
            }
        }
    }

    /// Starts a thread.
    ///
    /// - Parameters:
    ///   - name: shown by `top -H`; the kernel keeps the first 15 bytes.
    ///   - pace: the thread's scheduler slice.
    ///   - body: the code that the thread runs.
    package init(name: String, pace: Pace = .usual, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
        let shownName = String(decoding: name.utf8.prefix(15), as: UTF8.self)
        let start = Unmanaged.passRetained(Start(name: shownName, pace: pace, body: body))
        var thread = pthread_t()
        let result = pthread_create(
            &thread,
            nil,
            { argument in
                guard let argument else { return nil }
                let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                // A thread without a name works the same.
                _ = shim_set_thread_name(start.name)
                // A kernel without slices ignores the call. A thread whose policy the host has changed gets no slice.
                if let slice = start.pace.slice { _ = shim_set_slice(slice) }
                // A thread inherits the slack of the thread that created it.
                _ = shim_set_timer_slack(start.pace == .urgent ? 1 : Pace.usualSlack)
                start.body()
                return nil
            },
            start.toOpaque()
        )
        guard result == 0 else {
            start.release()
            throw SystemError("start the thread \(name)", Errno(rawValue: result), advice: "raise `ulimit -u`")
        }
        self.thread = thread
    }

    /// Lets other threads that wait for this processor run first.
    @inline(__always)
    package static func yield() {
        // sched_yield(2) always succeeds on Linux.
        _ = sched_yield()
    }

    /// Waits until the thread has ended, as dropping the value does.
    package consuming func join() {}

    deinit {
        if pthread_equal(thread, pthread_self()) != 0 {
            // The thread's own body released the last reference to the owner of this value. The thread is about to end,
            // and cannot join itself.
            _ = pthread_detach(thread)
            return
        }
        let result = pthread_join(thread, nil)
        precondition(result == 0, "pthread_join of our own thread failed: \(result)")
    }
}

import CShims
import Glibc
import SystemPackage

/// A named thread of its own that is always waited for.
public struct JoinedThread: ~Copyable, Sendable {
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

    /// How long a thread runs at a time, where others want its processor. Its share of the processors stays the same.
    ///
    /// A thread that is woken goes first, from Linux 6.12 on, where its slice is shorter than that of the one that runs.
    public enum Pace: Sendable {
        /// As long as the kernel has it, usually some milliseconds.
        case usual
        /// For the least time that the kernel takes, 100 µs: it works for moments and is waited for.
        case urgent
        /// For 300 µs: it works for long, beside threads that are waited for.
        case background

        /// In nanoseconds; nil for the kernel's own.
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
    ///   - name: shown by `top -H`; the kernel keeps 15 bytes.
    ///   - pace: how long it runs at a time.
    ///   - body: what it runs.
    public init(name: String, pace: Pace = .usual, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
        let shownName = String(decoding: name.utf8.prefix(15), as: UTF8.self)
        let start = Unmanaged.passRetained(Start(name: shownName, pace: pace, body: body))
        var thread = pthread_t()
        let result = pthread_create(
            &thread,
            nil,
            { argument in
                guard let argument else { return nil }
                let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                // A thread without its name works the same.
                _ = shim_set_thread_name(start.name)
                // An older kernel leaves it as it is; so does this where the host has chosen another policy.
                if let slice = start.pace.slice { _ = shim_set_slice(slice) }
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

    /// Lets other threads go first that wait for the calling thread's processor.
    @inline(__always)
    public static func yield() {
        // It fails on no system that has it.
        _ = sched_yield()
    }

    /// Waits until the thread has ended; so does dropping the value.
    public consuming func join() {}

    deinit {
        if pthread_equal(thread, pthread_self()) != 0 {
            // The thread's own body held the last reference to its owner. It is at its end and cannot wait for itself.
            _ = pthread_detach(thread)
            return
        }
        let result = pthread_join(thread, nil)
        precondition(result == 0, "pthread_join of our own thread failed: \(result)")
    }
}

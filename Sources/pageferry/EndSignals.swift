import Foundation
import LinuxSystem
import Synchronization

/// The signals that tell this process to exit: SIGTERM, SIGINT, and SIGHUP, which reports that the terminal was closed.
///
/// By default, a signal makes this process remove its `Leftovers` and die by the signal. A command that calls
/// ``take(_:)`` handles the signals itself.
enum EndSignals {
    private struct State {
        var isWatching = false
        var handler: (@Sendable () -> Void)?
        var onHangUp: (@Sendable () -> Void)?
        var lastWords: String?
    }

    private static let state = Mutex(State())

    /// Starts to watch for the signals.
    ///
    /// Call this before anything is created that must be removed at exit. A Dispatch source would lose a signal that
    /// arrives between its creation and its registration.
    static func watch() {
        state.withLock { state in
            guard !state.isWatching else { return }
            state.isWatching = true
            let pipe = Pipe()
            noticeDescriptor = pipe.fileHandleForWriting.fileDescriptor
            Thread.detachNewThread {
                // The pipe carries one byte for each signal. It never ends, since this thread holds both of its ends.
                while let number = pipe.fileHandleForReading.readData(ofLength: 1).first { taken(Int32(number)) }
            }
            for number in [SIGTERM, SIGINT, SIGHUP] {
                let before = signal(number, notice)
                // A SIGHUP that was ignored, as under nohup, stays ignored: the process must outlive its terminal.
                if number == SIGHUP, isIgnoring(before) { signal(number, SIG_IGN) }
            }
        }
    }

    /// Calls a handler on every signal, instead of ending the process.
    ///
    /// - Parameter onHangUp: called on SIGHUP in place of `handler`, by a service whose manager sends SIGHUP to reload.
    static func take(
        onHangUp: (@Sendable () -> Void)? = nil,
        _ handler: @escaping @Sendable () -> Void
    ) {
        watch()
        state.withLock { state in
            state.handler = handler
            state.onHangUp = onHangUp
        }
    }

    /// Prints a line when a signal ends the process.
    static func leave(saying line: String) {
        watch()
        state.withLock { $0.lastWords = line }
    }

    /// Whether a signal handler is SIG_IGN, which is not a function but the number 1.
    private static func isIgnoring(_ handler: (@convention(c) (Int32) -> Void)?) -> Bool {
        unsafeBitCast(handler, to: Int.self) == 1
    }

    private static func taken(_ number: Int32) {
        if number == SIGHUP, let onHangUp = state.withLock({ $0.onHangUp }) { return onHangUp() }
        if let handler = state.withLock({ $0.handler }) { return handler() }
        if let line = state.withLock({ $0.lastWords }) { Terminal.say(line) }
        Leftovers.removeAll()
        signal(number, SIG_DFL)
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, number)
        pthread_sigmask(SIG_UNBLOCK, &set, nil)
        raise(number)
    }
}

/// The end of the pipe to which ``notice(_:)`` writes.
///
/// `nonisolated(unsafe)`: set once, before ``notice(_:)`` is installed.
private nonisolated(unsafe) var noticeDescriptor: Int32 = -1

/// The signal handler, which passes the signal's number to the watching thread.
///
/// The handler runs between any two instructions of any thread. It may call write(2), and little else:
/// signal-safety(7).
private func notice(_ number: Int32) {
    let before = errno
    var byte = UInt8(truncatingIfNeeded: number)
    _ = write(noticeDescriptor, &byte, 1)
    errno = before
}

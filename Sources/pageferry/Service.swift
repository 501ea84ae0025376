import Dispatch
import Foundation
import LinuxSystem
import Logging
import Outside
import Synchronization

/// This process as a service of systemd, by the protocol of sd_notify(3).
///
/// Without a service manager, every call does nothing.
enum Service {
    /// The service manager that has started this process; nil if none has.
    ///
    /// The first use removes its variables, so that no child takes the manager for its own.
    static let manager = ServiceManager.take()

    private static let isTold = Atomic<Bool>(false)

    /// Writes the line `ready …` to standard output, and tells the service manager that the service is ready.
    static func ready(_ what: String, _ logger: Logger) {
        Terminal.ready(what)
        tell("READY=1\n\(status(what))", logger)
    }

    /// Tells the service manager that the configuration is read again, and that this is done when `body` returns.
    static func reload(_ logger: Logger, _ body: () -> Void) {
        // Microseconds of the monotonic clock, for Type=notify-reload.
        tell("RELOADING=1\nMONOTONIC_USEC=\(MonotonicClock.now() / 1000)", logger)
        body()
        tell("READY=1", logger)
    }

    /// Tells the service manager that the service ends, and why it does not end at once.
    static func stopping(_ what: String, _ logger: Logger) {
        tell("STOPPING=1\n\(status(what))", logger)
    }

    /// Makes the assignment of a status in one line: a workload's name may come from another program.
    private static func status(_ what: String) -> String { "STATUS=\(PrintableText.line(what))" }

    /// Tells the service manager at intervals that the service works, if it wants to hear that.
    ///
    /// - Parameter check: returns once the service has shown that it works. While it does not return, the manager hears
    ///   nothing, and replaces this process after the time that its unit says.
    static func watch(_ logger: Logger, _ check: @escaping @Sendable () -> Void) {
        guard let interval = manager?.watchdogInterval else { return }
        // A task might never run: a command may block the threads of tasks, of which there is one on one processor.
        Thread.detachNewThread {
            while true {
                check()
                tell("WATCHDOG=1", logger)
                Thread.sleep(forTimeInterval: interval / .seconds(3))
            }
        }
    }

    /// Watches a service that answers asynchronously, as ``watch(_:_:)`` does.
    static func watchTasks(_ logger: Logger, _ check: @escaping @Sendable () async -> Void) {
        watch(logger) {
            let answer = DispatchSemaphore(value: 0)
            Task {
                await check()
                answer.signal()
            }
            answer.wait()
        }
    }

    private static func tell(_ words: String, _ logger: Logger) {
        guard let manager else { return }
        do throws(SystemError) {
            try manager.tell(words)
        } catch {
            if !isTold.exchange(true, ordering: .relaxed) { logger.warning("\(error)") }
        }
    }
}

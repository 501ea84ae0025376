import Dispatch
import Foundation
import LinuxSystem
import Logging
import Outside
import Synchronization
import Web

/// This process as a service of systemd, by the protocol of sd_notify(3).
///
/// Without a service manager, every call does nothing.
enum Service {
    /// The service manager that has started this process; nil if none has.
    ///
    /// The first use removes its variables, so that no child takes the manager for its own.
    static let manager = ServiceManager.take()

    private static let isTold = Atomic<Bool>(false)
    /// Whether the manager believes that the service is ready: after READY=1, and before STOPPING=1.
    private static let isReady = Mutex(false)

    /// Writes the line `ready …` to standard output, and tells the service manager that the service is ready.
    ///
    /// - Parameters:
    ///   - places: where the service can be reached.
    ///   - web: the server of the live page; nil if there is none.
    static func ready(_ places: String, watched web: (server: WebServer, address: String)?, _ logger: Logger) {
        let what = places + (web.map { ", watched at \($0.address)" } ?? "")
        Terminal.ready(what)
        isReady.withLock { isReady in
            isReady = true
            tell("READY=1\n\(status(what))", logger)
        }
    }

    /// Tells the service manager that the configuration is read again, and that this is done when `body` returns.
    ///
    /// A service that is still starting, or stops already, tells nothing: READY=1 would end both.
    static func reload(_ logger: Logger, _ body: () -> Void) {
        isReady.withLock { isReady in
            guard isReady else { return body() }
            // Microseconds of the monotonic clock, for Type=notify-reload.
            tell("RELOADING=1\nMONOTONIC_USEC=\(MonotonicClock.now() / 1000)", logger)
            body()
            tell("READY=1", logger)
        }
    }

    /// Tells the service manager that the service ends, and why it does not end at once.
    static func stopping(_ what: String, _ logger: Logger) {
        isReady.withLock { isReady in
            isReady = false
            tell("STOPPING=1\n\(status(what))", logger)
        }
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
                // A sign of life that finds no room is not waited for: the next one follows.
                tell("WATCHDOG=1", waiting: .zero, logger)
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

    private static func tell(_ words: String, waiting time: Duration = ServiceManager.patience, _ logger: Logger) {
        guard let manager else { return }
        do throws(SystemError) {
            try manager.tell(words, waiting: time)
        } catch {
            if !isTold.exchange(true, ordering: .relaxed) { logger.warning("\(error)") }
        }
    }
}

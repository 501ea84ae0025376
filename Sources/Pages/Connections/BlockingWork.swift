package import LinuxSystem
package import Logging

/// Blocking work of a session, each piece on a thread that does nothing else meanwhile.
package struct BlockingWork: Sendable {
    /// The threads.
    package let threads = ThreadGroup(pace: .urgent, keepingThreadsFor: .seconds(1))
    private let logger: Logger

    package init(logger: Logger) {
        self.logger = logger
    }

    /// Runs work on a thread.
    ///
    /// If the kernel refuses a thread, the work blocks the caller instead, since whoever waits for its result would
    /// otherwise wait for ever.
    ///
    /// - Parameters:
    ///   - name: the thread's name, of at most 15 bytes.
    ///   - body: the work.
    package func run(_ name: String, _ body: @escaping @Sendable () -> Void) {
        do throws(SystemError) {
            try threads.run(name, body)
        } catch {
            logger.warning("\(error)")
            body()
        }
    }
}

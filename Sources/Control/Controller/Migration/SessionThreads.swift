import Connections
import LinuxSystem
import Logging

/// The thread of a session, and those of its blocking work, apart by who waits for them.
struct SessionThreads: Sendable {
    /// The thread that runs the session, which does not wait behind the tasks of clients.
    let session: ActorThread
    /// The work of the migration itself.
    let work: BlockingWork
    /// The closing of control connections.
    let hangUps: BlockingWork
    /// What is left to do for memory that the session gives up, which a guest can delay.
    ///
    /// A source frees the memory of a workload that has moved away, and a destination stops its page fetcher.
    let partings: BlockingWork

    /// Starts the session's thread.
    init(logger: Logger) throws(SystemError) {
        session = try ActorThread(name: "session")
        work = BlockingWork(logger: logger)
        hangUps = BlockingWork(logger: logger)
        partings = BlockingWork(logger: logger)
    }
}

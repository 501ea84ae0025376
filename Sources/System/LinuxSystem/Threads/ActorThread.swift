import Glibc
import Synchronization

/// A thread that runs one actor, in place of the threads that all tasks share.
///
/// The thread's scheduler slice is short, so that an actor that others wait for runs before tasks that can wait. The
/// actor holds this object, and returns ``executor`` as its executor. The thread ends with the object.
package final class ActorThread: Sendable {
    /// The work of the actor, which outlives ``ActorThread`` until the last piece has returned.
    private final class Work: SerialExecutor {
        enum Piece: Sendable {
            /// A part of a task.
            case job(UnownedJob)
            case body(@Sendable () -> Void)
        }

        private struct State {
            var waiting: [Piece] = []
            var hasEnded = false
        }

        private let state = Mutex(State())
        private let flag: EventDescriptor
        private let thread = Mutex<pthread_t?>(nil)

        init() throws(SystemError) {
            flag = try EventDescriptor()
        }

        func enqueue(_ job: consuming ExecutorJob) { add(.job(UnownedJob(job))) }

        func add(_ piece: Piece) {
            let isFirst = state.withLock { state in
                state.waiting.append(piece)
                return state.waiting.count == 1
            }
            if isFirst { flag.raise() }
        }

        func checkIsolated() {
            let isOwn = thread.withLock { thread in thread.map { pthread_equal($0, pthread_self()) != 0 } ?? false }
            precondition(isOwn, "the actor's own thread runs the actor")
        }

        /// Lets ``run()`` return once no work waits.
        func end() {
            state.withLock { $0.hasEnded = true }
            flag.raise()
        }

        func run() {
            thread.withLock { $0 = pthread_self() }
            var pieces: [Piece] = []
            while true {
                let hasEnded = state.withLock { state in
                    swap(&pieces, &state.waiting)
                    return state.hasEnded
                }
                for piece in pieces {
                    switch piece {
                    case .job(let job): job.runSynchronously(on: asUnownedSerialExecutor())
                    case .body(let body): body()
                    }
                }
                if pieces.isEmpty {
                    if hasEnded { return }
                    flag.wait()
                    flag.clear()
                }
                pieces.removeAll(keepingCapacity: true)
            }
        }
    }

    private let work: Work
    private let thread: JoinedThread

    /// Starts the thread.
    ///
    /// - Parameter name: shown by `top -H`; the kernel keeps the first 15 bytes.
    package init(name: String) throws(SystemError) {
        let work = try Work()
        self.work = work
        thread = try JoinedThread(name: name, pace: .urgent) { work.run() }
    }

    deinit {
        // The thread is joined afterwards, unless the actor ends on it.
        work.end()
    }

    /// Runs a piece of work, in which the actor's `assumeIsolated` holds, after the work that was added before.
    package func run(_ body: @escaping @Sendable () -> Void) { work.add(.body(body)) }

    /// The executor that the actor returns as its `unownedExecutor`.
    package var executor: UnownedSerialExecutor { work.asUnownedSerialExecutor() }
}

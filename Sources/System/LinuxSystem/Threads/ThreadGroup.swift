import Synchronization

/// Threads that each do one piece of blocking work and end; each of them is joined.
package final class ThreadGroup: Sendable {
    private struct Members {
        var running: [Int: Handover<JoinedThread>] = [:]
        var ended: [Int] = []
        var next = 0
    }

    private let members = Mutex(Members())
    /// Held while threads are joined: if several threads join the group, none returns before all of the group has
    /// ended.
    private let joining = Mutex<Void>(())

    package init() {}

    /// The number of threads that have not ended.
    package var count: Int { members.withLock { $0.running.count - $0.ended.count } }

    /// Runs `body` on a new thread.
    package func run(
        _ name: String,
        pace: JoinedThread.Pace = .usual,
        _ body: @escaping @Sendable () -> Void
    ) throws(SystemError) {
        let id = members.withLock { members in
            members.next += 1
            return members.next
        }
        reap()
        // The thread is in the table before it can report its end, since both happen under the lock.
        let started: Result<Void, SystemError> = members.withLock { members in
            Result { () throws(SystemError) in
                let thread = try JoinedThread(name: name, pace: pace) { [self] in
                    body()
                    self.members.withLock { $0.ended.append(id) }
                }
                members.running[id] = Handover(thread)
            }
        }
        try started.get()
    }

    /// Waits until all threads have ended.
    package func join() {
        joining.withLock { _ in joinAll() }
    }

    private func joinAll() {
        while true {
            let member = members.withLock { members in
                members.ended.removeAll()
                return members.running.popFirst()?.value
            }
            guard let member else { return }
            member.take()?.join()
        }
    }

    private func reap() {
        let reaped = members.withLock { members in
            defer { members.ended = [] }
            return members.ended.compactMap { members.running.removeValue(forKey: $0) }
        }
        // The removed threads have finished their bodies, so joining them waits for no work.
        for thread in reaped { thread.take()?.join() }
    }
}

extension Dictionary {
    fileprivate mutating func popFirst() -> Element? {
        guard let first else { return nil }
        removeValue(forKey: first.key)
        return first
    }
}

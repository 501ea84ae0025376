import Synchronization

/// Threads that each do one piece of blocking work and end; none is left behind unjoined.
public final class ThreadGroup: Sendable {
    private struct Members {
        var running: [Int: Handover<JoinedThread>] = [:]
        var ended: [Int] = []
        var next = 0
    }

    private let members = Mutex(Members())
    /// Held while threads are waited for: of several who wait, none returns before the others' threads have ended.
    private let joining = Mutex<Void>(())

    /// Makes a group without threads.
    public init() {}

    /// Threads that have not ended.
    public var count: Int { members.withLock { $0.running.count - $0.ended.count } }

    /// Runs `body` on a thread of its own.
    public func run(
        _ name: String,
        pace: JoinedThread.Pace = .usual,
        _ body: @escaping @Sendable () -> Void
    ) throws(SystemError) {
        let id = members.withLock { members in
            members.next += 1
            return members.next
        }
        reap()
        // The member is in the table before its thread can report its end: both happen under the lock.
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

    /// Waits for all threads.
    public func join() {
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
        // They have nothing left to do, so that this waits for no work.
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

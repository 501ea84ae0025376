import CShims
import Synchronization

/// Threads that do blocking work, each one piece at a time; each of them is joined.
package final class ThreadGroup: Sendable {
    fileprivate typealias Body = @Sendable () -> Void

    fileprivate struct Members {
        var running: [Int: Handover<JoinedThread>] = [:]
        var ended: [Int] = []
        /// The threads that have done their work and wait for more, each at its mailbox; nil ends a thread.
        var idle: [Int: Mailbox<(name: String, body: Body)?>] = [:]
        var next = 0
        /// The calls that wait for the threads.
        var joins = 0
    }

    private let members = Mutex(Members())
    /// Held while threads are joined: if several threads join the group, none returns before all of the group has
    /// ended.
    private let joining = Mutex<Void>(())
    private let pace: JoinedThread.Pace
    private let rest: Duration

    /// Makes a group without threads.
    ///
    /// - Parameters:
    ///   - pace: the scheduler slice of threads for which ``run(_:pace:_:)`` names none.
    ///   - rest: how long a thread that has done its work waits for more. A new thread takes about 100 µs to start; a
    ///     thread that waits takes about 20 µs.
    package init(pace: JoinedThread.Pace = .usual, keepingThreadsFor rest: Duration = .zero) {
        self.pace = pace
        self.rest = rest
    }

    /// The number of threads that work.
    package var count: Int { members.withLock { $0.running.count - $0.ended.count - $0.idle.count } }

    /// Runs `body` on a thread that does nothing else meanwhile.
    ///
    /// `pace` counts only for a new thread.
    package func run(
        _ name: String,
        pace: JoinedThread.Pace? = nil,
        _ body: @escaping @Sendable () -> Void
    ) throws(SystemError) {
        if members.withLock({ $0.handOver(name, body) }) { return }
        // Without a mailbox, the thread ends after its first work.
        let mailbox: Mailbox<(name: String, body: Body)?>? = rest > .zero ? try? Mailbox() : nil
        // Taken out when the work begins, so that a thread which waits for more keeps no object of earlier work alive.
        let first = Handover(body)
        let id = members.withLock { members in
            members.next += 1
            return members.next
        }
        reap()
        // The thread is in the table before it can report its end, since both happen under the lock.
        let started: Result<Void, SystemError> = members.withLock { members in
            Result { () throws(SystemError) in
                let thread = try JoinedThread(name: name, pace: pace ?? self.pace) { [self] in
                    first.take()?()
                    if let mailbox { work(id, mailbox) }
                    self.members.withLock { $0.ended.append(id) }
                }
                members.running[id] = Handover(thread)
            }
        }
        try started.get()
    }

    /// Does more work on a thread that has done its first, until none has come for some time or the group is joined.
    private func work(_ id: Int, _ mailbox: Mailbox<(name: String, body: Body)?>) {
        while true {
            let mayWait = members.withLock { members in
                if members.joins == 0 { members.idle[id] = mailbox }
                return members.joins == 0
            }
            guard mayWait else { return }
            var more = mailbox.next(milliseconds: Int(rest / .milliseconds(1)))
            if more == nil {
                // Work that was handed over at the last moment is done all the same.
                let isLeft = members.withLock { $0.idle.removeValue(forKey: id) != nil }
                if isLeft { return }
                more = mailbox.next()
            }
            guard case .some(.some(let piece)) = more else { return }
            // A thread with another name works the same.
            _ = shim_set_thread_name(piece.name)
            piece.body()
        }
    }

    /// Waits until all threads have ended.
    package func join() {
        members.withLock { members in
            members.joins += 1
            for mailbox in members.idle.values { mailbox.put(nil) }
            members.idle = [:]
        }
        joining.withLock { _ in joinAll() }
        members.withLock { $0.joins -= 1 }
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

extension ThreadGroup.Members {
    /// Hands work to a thread that waits for it.
    ///
    /// - Returns: whether a thread waited.
    fileprivate mutating func handOver(_ name: String, _ body: @escaping @Sendable () -> Void) -> Bool {
        guard let (_, mailbox) = idle.popFirst() else { return false }
        mailbox.put((name, body))
        return true
    }
}

extension Dictionary {
    fileprivate mutating func popFirst() -> Element? {
        guard let first else { return nil }
        removeValue(forKey: first.key)
        return first
    }
}

import Synchronization

/// A queue of messages from any thread to the one thread that waits for them.
package final class Mailbox<Message: Sendable>: Sendable {
    private let messages = Mutex<[Message]>([])
    private let limit: Int
    /// Raised by every message; the waiting thread clears the flag under the lock before it looks at the messages.
    private let flag: EventDescriptor

    /// Makes a queue that is empty.
    ///
    /// - Parameter limit: the most messages that wait, at least 1. One more message drops the oldest.
    package init(limit: Int = .max) throws(SystemError) {
        self.limit = limit
        flag = try EventDescriptor()
    }

    /// Adds a message.
    package func put(_ message: Message) {
        messages.withLock { messages in
            if messages.count >= limit { messages.removeFirst() }
            messages.append(message)
            flag.raise()
        }
    }

    /// Waits for a message, and takes it.
    ///
    /// - Parameter isWanted: whether to take a message; others stay in the queue.
    package func next(where isWanted: (Message) -> Bool = { _ in true }) -> Message {
        while true {
            if let message = take(where: isWanted) { return message }
            flag.wait()
        }
    }

    /// Waits for a message until the time has passed, and takes it.
    ///
    /// - Parameters:
    ///   - milliseconds: the longest wait.
    ///   - isWanted: whether to take a message; others stay in the queue.
    /// - Returns: nil if no message that is wanted came in time.
    package func next(milliseconds: Int, where isWanted: (Message) -> Bool = { _ in true }) -> Message? {
        let deadline = MonotonicClock.now() + UInt64(milliseconds) * 1_000_000
        while true {
            if let message = take(where: isWanted) { return message }
            let now = MonotonicClock.now()
            // Rounded up: a timeout of 0 would not wait through the last part of a millisecond.
            guard now < deadline, flag.wait(milliseconds: Int((deadline - now + 999_999) / 1_000_000)) else {
                return nil
            }
        }
    }

    /// Waits until a message comes, a process exits, or the other end of a socket is closed.
    ///
    /// Call this only when ``next(milliseconds:where:)`` has found no message: one that came before is not waited for.
    ///
    /// - Parameters:
    ///   - process: the process.
    ///   - socket: a connection to the process; nil if the process may close its end and continue to run.
    ///   - milliseconds: the longest wait; nil for any.
    package func wait(
        orEndOf process: borrowing PeerProcess,
        _ socket: SharedSocket?,
        milliseconds: Int?
    ) -> PeerProcess.Arrival {
        process.waitForEnd(orHangUpOf: socket, or: flag, milliseconds: milliseconds)
    }

    private func take(where isWanted: (Message) -> Bool) -> Message? {
        messages.withLock { messages in
            flag.clear()
            return messages.firstIndex(where: isWanted).map { messages.remove(at: $0) }
        }
    }
}

import LinuxSystem
import Synchronization

/// A bound on the messages of peers that wait to be handled; the thread that receives waits while the inbox is full.
///
/// A place is returned when the last reference to its ``Slot`` is released, so that no handler of an event can forget
/// to return it.
package final class Inbox: Sendable {
    /// A place in an inbox, held until the message has been handled.
    package final class Slot: Sendable {
        private let inbox: Inbox

        fileprivate init(_ inbox: Inbox) { self.inbox = inbox }

        deinit { inbox.leave() }
    }

    private struct State {
        var used = 0
        var isClosed = false
        var isWaiting = false
    }

    private let limit: Int
    private let state = Mutex(State())
    /// Raised when the waiting thread may find a place.
    private let room: EventDescriptor

    init(limit: Int) throws(SystemError) {
        self.limit = limit
        room = try EventDescriptor()
    }

    /// Takes a place, waiting while the inbox is full; only one thread may call this.
    ///
    /// - Parameter note: called after each wait, before ``isFull`` becomes false.
    /// - Returns: nil if the inbox is closed.
    func enter(afterWait note: () -> Void = {}) -> Slot? {
        while true {
            let isIn = state.withLock { state -> Bool? in
                if state.isClosed { return nil }
                guard state.used >= limit else {
                    state.used += 1
                    state.isWaiting = false
                    return true
                }
                state.isWaiting = true
                room.clear()
                return false
            }
            guard let isIn else { return nil }
            if isIn { return Slot(self) }
            room.wait()
            note()
        }
    }

    /// Whether a thread waits for a place.
    var isFull: Bool { state.withLock(\.isWaiting) }

    /// Closes the inbox: waiting and later calls of ``enter(afterWait:)`` return nil.
    func close() {
        state.withLock { $0.isClosed = true }
        room.raise()
    }

    private func leave() {
        state.withLock { state in
            state.used -= 1
            // Raised under the lock, since the thread that clears the event does so under the lock, and only while this
            // place is taken.
            if state.isWaiting { room.raise() }
        }
    }
}

import Synchronization

/// A bound on the messages of peers that wait to be handled; no further message is received while the inbox is full.
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
        /// Whether an attempt to enter found no place, and none was returned since.
        var isFull = false
        var onRoom: @Sendable () -> Void = {}
    }

    private let limit: Int
    private let state = Mutex(State())

    init(limit: Int) {
        self.limit = limit
    }

    /// Sets the function that is called when a place is returned to a full inbox, and ``enter()`` is worth a retry.
    func onRoom(_ body: @escaping @Sendable () -> Void) {
        state.withLock { $0.onRoom = body }
    }

    /// Takes a place; nil if the inbox is full.
    func enter() -> Slot? {
        let isIn = state.withLock { state in
            state.isFull = state.used >= limit
            if !state.isFull { state.used += 1 }
            return !state.isFull
        }
        return isIn ? Slot(self) : nil
    }

    /// Whether an attempt to enter found no place, and none was returned since.
    var isFull: Bool { state.withLock(\.isFull) }

    private func leave() {
        let onRoom = state.withLock { state in
            state.used -= 1
            return state.isFull ? state.onRoom : nil
        }
        guard let onRoom else { return }
        onRoom()
        state.withLock { $0.isFull = $0.used >= limit }
    }
}

import LinuxSystem
import Synchronization

/// How much of what peers have brought may wait to be dealt with: whoever brings more waits for that.
///
/// A place is given back when the last reference to its ``Slot`` goes, so that no reader of an event can forget it.
public final class Inbox: Sendable {
    /// A place in an inbox, held for as long as what was brought is not dealt with.
    public final class Slot: Sendable {
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
    /// Raised when there may be a place for the one that waits.
    private let room: EventDescriptor

    init(limit: Int) throws(SystemError) {
        self.limit = limit
        room = try EventDescriptor()
    }

    /// Takes a place, after waiting for it. Called by one thread.
    ///
    /// - Parameter note: called after each wait, before ``isFull`` ends.
    /// - Returns: nil once the inbox is closed.
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

    /// Whether somebody waits for a place.
    var isFull: Bool { state.withLock(\.isWaiting) }

    /// Lets nobody in any more.
    func close() {
        state.withLock { $0.isClosed = true }
        room.raise()
    }

    private func leave() {
        state.withLock { state in
            state.used -= 1
            // Under the lock: whoever clears the flag has seen this place taken.
            if state.isWaiting { room.raise() }
        }
    }
}

import Glibc
import Synchronization

/// Objects that this process creates and must remove again, such as the file of a socket.
///
/// Whatever is still noted when the process exits is removed then. A process that a signal ends does not exit: the code
/// that handles the signal must call ``removeAll()``.
package enum Leftovers {
    private struct State {
        var removals: [Int: @Sendable () -> Void] = [:]
        var last = 0
    }

    private static let state = Mutex(State())
    /// Registers ``removeAll()`` to run at exit, once, when the first removal is noted.
    private static let removesAtExit: Void = {
        atexit { Leftovers.removeAll() }
    }()

    /// Notes how to remove an object.
    ///
    /// - Returns: the number under which ``forget(_:)`` finds the removal.
    package static func note(_ remove: @escaping @Sendable () -> Void) -> Int {
        removesAtExit
        return state.withLock { state in
            state.last += 1
            state.removals[state.last] = remove
            return state.last
        }
    }

    /// Forgets a removal, because the object was removed or now belongs to another process.
    package static func forget(_ number: Int) {
        state.withLock { _ = $0.removals.removeValue(forKey: number) }
    }

    /// Runs all noted removals, the newest first.
    package static func removeAll() {
        let removals = state.withLock { state in
            defer { state.removals = [:] }
            return state.removals.sorted { $0.key > $1.key }
        }
        for (_, remove) in removals { remove() }
    }
}

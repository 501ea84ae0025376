import Synchronization

/// Tells that a workload's process has ended, also who asks only afterwards.
package final class EndNotice: Sendable {
    private struct State {
        var reason: String?
        var tell: (@Sendable (String) -> Void)?
    }

    private let state = Mutex(State())

    package init() {}

    /// It has ended.
    package func note(_ reason: String) {
        let tell = state.withLock { state in
            state.reason = reason
            return state.tell
        }
        tell?(reason)
    }

    /// Says whom to tell, instead of whom was said before; at once if it has ended already.
    package func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) {
        let reason = state.withLock { state in
            state.tell = tell
            return state.reason
        }
        if let reason { tell(reason) }
    }
}

import Synchronization

/// Reports the end of a workload's process to one handler, which may be set before the end or after it.
package final class EndNotice: Sendable {
    private struct State {
        var reason: String?
        var tell: (@Sendable (String) -> Void)?
    }

    private let state = Mutex(State())

    package init() {}

    /// Notes that the process has ended, and calls the handler.
    package func note(_ reason: String) {
        let tell = state.withLock { state in
            state.reason = reason
            return state.tell
        }
        tell?(reason)
    }

    /// Sets the handler, replacing any earlier one; calls it at once if the process has already ended.
    package func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) {
        let reason = state.withLock { state in
            state.tell = tell
            return state.reason
        }
        if let reason { tell(reason) }
    }
}

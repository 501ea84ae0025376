import LinuxSystem
import Synchronization

/// Whether a guest runs, or why it never will again.
final class GuestFate: Sendable {
    private struct State {
        var isRunning = false
        var end: String?
        var tell: (@Sendable (_ reason: String) -> Void)?
    }

    private let state = Mutex(State())
    private let processors: [VirtualProcessor]

    init(_ processors: [VirtualProcessor]) {
        self.processors = processors
    }

    var isRunning: Bool { state.withLock { $0.isRunning } }

    /// Notes that it runs.
    ///
    /// - Throws: why it cannot.
    func begin() throws(KVMGuestError) {
        let end = state.withLock { state in
            state.isRunning = state.end == nil
            return state.end
        }
        if let end { throw KVMGuestError("the guest has ended: \(end)") }
    }

    /// Lets every vCPU leave the guest soon, and notes that it does not run.
    func interrupt() {
        for processor in processors { processor.interrupt() }
        state.withLock { $0.isRunning = false }
    }

    /// Ends the guest for good. The first reason counts.
    func end(_ reason: String) {
        let tell = state.withLock { state in
            guard state.end == nil else { return nil as (@Sendable (String) -> Void)? }
            state.end = reason
            return state.tell
        }
        interrupt()
        tell?(reason)
    }

    /// Says whom to tell of the end, also if it was before.
    func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) {
        let end = state.withLock { state in
            state.tell = tell
            return state.end
        }
        if let end { tell(end) }
    }
}

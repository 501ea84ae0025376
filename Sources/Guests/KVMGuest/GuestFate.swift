import LinuxSystem
import Synchronization

/// Whether a guest runs and, once the guest has ended, the reason why it never will again.
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

    /// Notes that the guest runs.
    ///
    /// - Throws: ``KVMGuestError`` with the reason if the guest has ended.
    func begin() throws(KVMGuestError) {
        let end = state.withLock { state in
            state.isRunning = state.end == nil
            return state.end
        }
        if let end { throw KVMGuestError("the guest has ended: \(end)") }
    }

    /// Makes every vCPU leave the guest soon, and notes that the guest does not run.
    func interrupt() {
        for processor in processors { processor.interrupt() }
        state.withLock { $0.isRunning = false }
    }

    /// Ends the guest for good; only the first reason is kept and reported.
    func end(_ reason: String) {
        let tell = state.withLock { state in
            guard state.end == nil else { return nil as (@Sendable (String) -> Void)? }
            state.end = reason
            return state.tell
        }
        interrupt()
        tell?(reason)
    }

    /// Sets the handler for the guest's end, replacing any earlier one; calls it at once if the guest has ended.
    func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) {
        let end = state.withLock { state in
            state.tell = tell
            return state.end
        }
        if let end { tell(end) }
    }
}

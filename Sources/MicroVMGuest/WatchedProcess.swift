import LinuxSystem
import Synchronization

/// A process whose end is told.
final class WatchedProcess: Sendable {
    let process: PeerProcess
    /// How it is called in messages.
    let name: String
    private let leaving: EventDescriptor
    private let end = Mutex(End())

    private struct End {
        var reason: String?
        var tell: (@Sendable (String) -> Void)?
    }

    init(_ process: consuming PeerProcess, name: String) throws(SystemError) {
        leaving = try EventDescriptor()
        self.name = "\(name) (process \(process.id))"
        self.process = process
    }

    /// Waits until it has ended, and tells so; or until nobody wants to know.
    func waitForEnd() {
        guard process.waitForEnd(orHangUpOf: nil, or: leaving) else { return }
        let reason = "\(name) has ended"
        let tell = end.withLock { end in
            end.reason = reason
            return end.tell
        }
        tell?(reason)
    }

    /// Waits until it has ended.
    func waitUntilEnded() {
        process.waitForEnd()
    }

    /// Nobody wants to know any more.
    func leave() { leaving.raise() }

    /// Says whom to tell that it has ended, also if it was before.
    func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) {
        let reason = end.withLock { end in
            end.tell = tell
            return end.reason
        }
        if let reason { tell(reason) }
    }
}

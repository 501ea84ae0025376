import Guest
import LinuxSystem

/// A process whose end is told.
final class WatchedProcess: Sendable {
    let process: PeerProcess
    /// How it is called in messages.
    let name: String
    private let leaving: EventDescriptor
    /// Whom it is told.
    let end = EndNotice()

    init(_ process: consuming PeerProcess, name: String) throws(SystemError) {
        leaving = try EventDescriptor()
        self.name = "\(name) (process \(process.id))"
        self.process = process
    }

    /// Waits until it has ended, and tells so; or until nobody wants to know.
    func waitForEnd() {
        guard process.waitForEnd(orHangUpOf: nil, or: leaving) else { return }
        end.note("\(name) has ended")
    }

    /// Waits until it has ended.
    func waitUntilEnded() {
        process.waitForEnd()
    }

    /// Nobody wants to know any more.
    func leave() { leaving.raise() }
}

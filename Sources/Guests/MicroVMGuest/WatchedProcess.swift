import Guest
import LinuxSystem

/// A process, and the notice of its end.
final class WatchedProcess: Sendable {
    let process: PeerProcess
    /// The process's name for messages, with its process id.
    let name: String
    private let leaving: EventDescriptor
    let end = EndNotice()

    init(_ process: consuming PeerProcess, name: String) throws(SystemError) {
        leaving = try EventDescriptor()
        self.name = "\(name) (process \(process.id))"
        self.process = process
    }

    /// Waits until the process has ended, and notes its end; returns early after ``leave()``.
    func waitForEnd() {
        guard process.waitForEnd(orHangUpOf: nil, or: leaving) == .departure else { return }
        end.note("\(name) has ended")
    }

    /// Waits until the process has ended.
    func waitUntilEnded() {
        process.waitForEnd()
    }

    /// Makes ``waitForEnd()`` return without a notice.
    func leave() { leaving.raise() }
}

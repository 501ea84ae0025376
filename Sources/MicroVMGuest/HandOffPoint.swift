import LinuxSystem
import Synchronization

/// A Unix socket at which one process hands something over.
final class HandOffPoint: Sendable {
    let path: String
    private let listener: Listener
    private let receiver = ThreadGroup()
    private let outcome = Mutex(Outcome.nobodyCame)

    /// What has come of it.
    enum Outcome {
        case nobodyCame, received
        case failed(any Error)
    }

    /// A path that nobody uses.
    static func newPath() -> String { "/tmp/pageferry-\(UInt64.random(in: 0...UInt64.max)).sock" }

    /// Makes the socket, mode 0600.
    init(at path: String) throws(SystemError) {
        self.path = path
        listener = try Listener(at: .unix(path: path))
    }

    deinit {
        listener.file?.remove()
    }

    /// Has the one that comes received on a thread of its own.
    func receive(_ body: @escaping @Sendable (consuming StreamSocket) throws -> Void) throws(SystemError) {
        try receiver.run("hand-off") { [self] in
            do {
                guard let socket = try listener.accept() else { return }
                try body(socket)
                outcome.withLock { $0 = .received }
            } catch {
                outcome.withLock { $0 = .failed(error) }
            }
        }
    }

    /// Takes nobody any more.
    func end() -> Outcome {
        listener.shutdown()
        receiver.join()
        return outcome.withLock { $0 }
    }
}

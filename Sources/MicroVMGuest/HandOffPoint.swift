import LinuxSystem
import Synchronization

/// A Unix socket at which one process hands something over.
final class HandOffPoint: Sendable {
    let path: String
    private let listener: Listener
    private let receiver = ThreadGroup()
    private let outcome = Mutex(Outcome.nobodyCame)

    private enum Outcome {
        case nobodyCame, received
        case failed(any Error)
    }

    /// Makes the socket, mode 0600.
    init() throws(SystemError) {
        path = "/tmp/pageferry-\(UInt64.random(in: 0...UInt64.max)).sock"
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
    ///
    /// - Returns: why nothing was received; nil if it was.
    func end() -> (any Error)? {
        listener.shutdown()
        receiver.join()
        switch outcome.withLock({ $0 }) {
        case .received: return nil
        case .failed(let error): return error
        case .nobodyCame: return MicroVMError("the microVM's memory was not handed over")
        }
    }
}

import Attachments
import LinuxSystem
import Synchronization

/// A Unix socket at which one process hands its memory over.
final class HandOffPoint: Sendable {
    typealias Message = StreamSocket.DescriptorMessage

    let path: String
    private let openings: Openings<Handover<Message>>
    private let outcome: Result

    /// The result of waiting for a hand-off.
    enum Outcome {
        case nobodyCame, received
        case failed(any Error)
    }

    private final class Result: Sendable {
        let outcome = Mutex(Outcome.nobodyCame)
    }

    /// A path with a random name, which no other hand-off uses.
    static func newPath() -> String { "/tmp/pageferry-\(UInt64.random(in: 0...UInt64.max)).sock" }

    /// Makes the socket, mode 0600, and starts a thread that receives one message there.
    ///
    /// - Parameter body: receives the first connection that sends a message, and the message, on that thread. An error
    ///   thrown by `body` becomes the outcome.
    init(
        at path: String,
        _ body: @escaping @Sendable (consuming StreamSocket, consuming Message) throws -> Void
    ) throws(SystemError) {
        self.path = path
        let result = Result()
        outcome = result
        let fail: @Sendable (any Error) -> Void = { error in result.outcome.withLock { $0 = .failed(error) } }
        openings = try Openings(
            Listener(at: .unix(path: path)),
            name: "hand-off",
            Openings<Handover<Message>>.Handling(
                read: { socket, _ in Handover(try socket.receiveDescriptors(maxBytes: FirecrackerHandOff.maxBytes)) },
                open: { socket, message in
                    guard case .nobodyCame = result.outcome.withLock(\.self), let socket = socket.take(),
                        let message = message.take()
                    else { return }
                    do {
                        try body(socket, message)
                        result.outcome.withLock { $0 = .received }
                    } catch {
                        fail(error)
                    }
                },
                // A connection that sends no message is not Firecracker's.
                drop: { _, _ in },
                onShortage: { _ in },
                onEnd: fail
            )
        )
    }

    deinit {
        openings.stop()
    }

    /// Removes the socket, and returns the result so far.
    func end() -> Outcome {
        openings.stop()
        return outcome.outcome.withLock { $0 }
    }
}

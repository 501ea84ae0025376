import LinuxSystem
import Synchronization

/// Messages from any thread to one that waits for them.
final class Mailbox<Message: Sendable>: Sendable {
    private let messages = Mutex<[Message]>([])
    private let flag: EventDescriptor

    init() throws(SystemError) {
        flag = try EventDescriptor()
    }

    func put(_ message: Message) {
        messages.withLock { $0.append(message) }
        flag.raise()
    }

    /// Waits for the next message, at most so long; nil if none has come.
    func next(milliseconds: Int? = nil) -> Message? {
        while true {
            if let message = take() { return message }
            if let milliseconds {
                guard flag.wait(milliseconds: milliseconds) else { return nil }
            } else {
                flag.wait()
            }
        }
    }

    private func take() -> Message? {
        messages.withLock { messages in
            // Cleared under the lock: a message that is put behind this raises it again.
            if messages.count <= 1 { flag.clear() }
            return messages.isEmpty ? nil : messages.removeFirst()
        }
    }
}

public import Guest
import LinuxSystem
public import Logging
import Synchronization

/// Lets a guest arrive in the memory of another process, which connects to a Unix socket and hands its userfaultfd over.
public final class AttachedLanding: Landing {
    private struct Attached: ~Copyable {
        let process: AttachedProcess
        let userfaultfd: Userfaultfd
        let ranges: [PageRange]
    }

    /// Seconds that a migration waits for a process which is just about to attach.
    private static let grace = 5
    /// Seconds for a process that has connected to hand its userfaultfd over.
    private static let handOffTimeout = 5

    private let listener: Listener
    private let logger: Logger
    private let attached = Mutex<Attached?>(nil)
    private let arrival: EventDescriptor
    private let thread = Mutex<JoinedThread?>(nil)

    /// Listens for processes.
    ///
    /// - Parameter path: the socket to make, mode 0600.
    public init(socketPath path: String, logger: Logger) throws {
        listener = try Listener(at: .unix(path: path))
        arrival = try EventDescriptor()
        self.logger = logger
        var thread: JoinedThread? = try JoinedThread(name: "attach") { [self] in accept() }
        self.thread.withLock { swap(&thread, &$0) }
    }

    /// Takes no more processes and removes the socket.
    public func close() {
        listener.shutdown()
        listener.file?.remove()
        var thread: JoinedThread? = nil
        self.thread.withLock { swap(&thread, &$0) }
    }

    /// Gives the guest the memory of the process that attached last.
    public func prepare(_ description: GuestDescription) throws -> PreparedGuest {
        guard arrival.wait(seconds: AttachedLanding.grace), let attached = takeAttached() else {
            throw AttachmentError("no process has attached at \(listener.address); start it first")
        }
        let found = attached.ranges.map { "\($0.byteCount) bytes" }
        let wanted = description.regions.map { "\($0.pageSize * $0.pageCount) bytes" }
        let process = attached.process
        guard found == wanted, description.regions.allSatisfy({ $0.pageSize == 4096 }) else {
            let reason =
                "its regions have \(found.joined(separator: ", ")), the guest's \(wanted.joined(separator: ", "))"
            try? process.refuse(reason)
            throw AttachmentError("\(process.name) does not fit the guest: \(reason)")
        }
        let ranges = attached.ranges
        let resident = try ranges.map { try PageBitmap(pageCount: $0.pageCount) }
        return PreparedGuest(
            userfaultfd: attached.userfaultfd,
            ranges: ranges,
            resident: resident,
            workload: AttachedWorkload(description: description, process: process)
        )
    }

    private func takeAttached() -> Attached? {
        var taken: Attached? = nil
        // The flag is raised and cleared under the lock: it tells whether a process is there.
        attached.withLock {
            swap(&taken, &$0)
            arrival.clear()
        }
        return taken
    }

    private func accept() {
        do {
            while let socket = try listener.accept() { take(socket) }
        } catch {
            logger.error("no further process can attach at \(listener.address): \(error)")
        }
    }

    private func take(_ socket: consuming StreamSocket) {
        let peer = socket.peer
        do {
            try socket.setReceiveTimeout(seconds: AttachedLanding.handOffTimeout)
            let message = try socket.receiveDescriptors(maxBytes: HandOff.maxBytes)
            try socket.setReceiveTimeout(seconds: 0)
            guard message.descriptorCount == 1 else {
                throw AttachmentError("the hand-off came with \(message.descriptorCount) descriptors instead of one")
            }
            let handOff = try HandOff(message.bytes)
            var next: Attached? = Attached(
                process: AttachedProcess(socket),
                userfaultfd: try message.takeUserfaultfd(),
                ranges: handOff.ranges
            )
            attached.withLock {
                swap(&next, &$0)
                arrival.raise()
            }
            logger.notice("\(peer) has attached with \(handOff.ranges.count) regions")
            // One process at a time: who attached before and was not used is let go.
            if let earlier = next?.process { try? earlier.refuse("another process has attached") }
        } catch {
            logger.warning("refused \(peer) at \(listener.address): \(error)")
        }
    }
}

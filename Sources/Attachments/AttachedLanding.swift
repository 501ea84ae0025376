import Glibc
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
        let aliases: [MemoryAlias?]
    }

    /// Seconds that a migration waits for a process which is just about to attach.
    private static let grace = 5.0

    private let path: String
    private let logger: Logger
    private let attached = Mutex<Attached?>(nil)
    private let arrival: EventDescriptor
    private let openings = Mutex<Openings<Handover<StreamSocket.DescriptorMessage>>?>(nil)

    /// Listens for processes.
    ///
    /// - Parameter path: the socket to make, mode 0600.
    public init(socketPath path: String, logger: Logger) throws {
        self.path = path
        arrival = try EventDescriptor()
        self.logger = logger
        let openings = try Openings(
            Listener(at: .unix(path: path)),
            name: "attach",
            Openings<Handover<StreamSocket.DescriptorMessage>>.Handling(
                read: { socket, _ in Handover(try socket.receiveDescriptors(maxBytes: HandOff.maxBytes)) },
                open: { [self] socket, message in
                    if let socket = socket.take(), let message = message.take() { take(socket, message) }
                },
                drop: { [self] in refuse($0.peer, because: $1) },
                onShortage: { logger.error("a process waits to attach: \($0)") },
                onEnd: { logger.error("no further process can attach at unix:\(path): \($0)") }
            )
        )
        self.openings.withLock { $0 = openings }
    }

    /// Nobody knows what a process of its own writes.
    public var canVerify: Bool { false }

    /// Takes no more processes and removes the socket.
    public func close() {
        // Its handling holds this landing.
        openings.withLock { $0.take() }?.stop()
    }

    /// Gives the guest the memory of the process that attached last.
    ///
    /// A guest that does not fit leaves the process to the next, and so does one that goes before the process was told
    /// of any device.
    public func prepare(
        _ description: GuestDescription,
        onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
    ) throws -> any Workload {
        guard arrival.wait(seconds: AttachedLanding.grace), let attached = try takeAttached(fitting: description) else {
            throw AttachmentError("no process has attached at \(SocketAddress.unix(path: path)); start it first")
        }
        let process = attached.process
        let (ranges, aliases) = (attached.ranges, attached.aliases)
        let userfaultfd: Userfaultfd
        let resident: [PageBitmap]
        do {
            resident = try ranges.map { try PageBitmap(pageCount: $0.pageCount) }
            userfaultfd = try attached.userfaultfd.duplicate()
        } catch {
            putBack(attached)
            throw error
        }
        let kept = Handover(attached)
        // Its memory is the agent's from then on: nothing here keeps the pages of a process that has ended.
        let workload = AttachedWorkload(description: description, process: process, onUse: { _ = kept.take() }) {
            [weak self] in
            if let attached = kept.take() { self?.putBack(attached) }
        }
        workload.onEnd { [logger] reason in logger.notice("\(reason)") }
        onMemory(WaitingMemory(userfaultfd: userfaultfd, ranges: ranges, resident: resident, aliases: aliases))
        return workload
    }

    /// Takes the process that has attached, if there is one still.
    ///
    /// - Throws: ``AttachmentError`` if the guest does not fit into its memory; then it stays.
    private func takeAttached(fitting description: GuestDescription) throws(AttachmentError) -> Attached? {
        var taken: Attached? = nil
        // The flag is raised and cleared under the lock: it tells whether a process is there.
        let misfit = attached.withLock { attached -> AttachmentError? in
            if let misfit = AttachedLanding.misfit(of: description, in: attached) { return misfit }
            swap(&taken, &attached)
            arrival.clear()
            return nil
        }
        if let misfit { throw misfit }
        return taken
    }

    private static func misfit(of guest: GuestDescription, in attached: borrowing Attached?) -> AttachmentError? {
        let (name, ranges): (String, [PageRange])
        switch attached {
        case .none: return nil
        case .some(let attached): (name, ranges) = (attached.process.name, attached.ranges)
        }
        let found = ranges.map { "\($0.pageCount) pages of \($0.pageSize) bytes" }
        let wanted = guest.regions.map { "\($0.pageCount) pages of \($0.pageSize) bytes" }
        guard found != wanted else { return nil }
        return AttachmentError(
            "\(name) does not fit the guest: its regions have \(found.joined(separator: ", ")), the guest's "
                + "\(wanted.joined(separator: ", "))"
        )
    }

    /// Lets the next guest have a process that was not used, unless another one has attached meanwhile.
    private func putBack(_ unused: consuming Attached) {
        let process = unused.process
        var unused: Attached? = unused
        let isBack = attached.withLock { attached in
            guard attached == nil else { return false }
            swap(&unused, &attached)
            arrival.raise()
            return true
        }
        if !isBack { AttachedLanding.letGo(process) }
    }

    /// One process at a time: who attached before and was not used is let go.
    private static func letGo(_ process: AttachedProcess) {
        // It may have left already.
        try? process.refuse("another process has attached")
    }

    private func refuse(_ peer: String, because error: any Error) {
        logger.warning("refused \(peer) at \(SocketAddress.unix(path: path)): \(error)")
    }

    private func take(_ socket: consuming StreamSocket, _ message: consuming StreamSocket.DescriptorMessage) {
        let peer = socket.peer
        do {
            let handOff = try HandOff(message.bytes)
            guard message.descriptorCount == handOff.descriptorCount else {
                let expected = handOff.descriptorCount == 1 ? "one" : "\(handOff.descriptorCount)"
                throw AttachmentError(
                    "the hand-off came with \(message.descriptorCount) descriptors instead of \(expected)"
                )
            }
            let aliases = try zip(handOff.ranges, handOff.files).map { range, file in
                try file.map { try message.alias(of: $0.descriptor, from: $0.offset, like: range) }
            }
            let userfaultfd = try message.takeUserfaultfd()
            for (range, alias) in zip(handOff.ranges, aliases) where alias != nil {
                // Without minor faults the process would see pages that are being received.
                try userfaultfd.registerMinor(range)
            }
            var next: Attached? = Attached(
                process: AttachedProcess(socket),
                userfaultfd: userfaultfd,
                ranges: handOff.ranges,
                aliases: aliases
            )
            attached.withLock {
                swap(&next, &$0)
                arrival.raise()
            }
            logger.notice("\(peer) has attached with \(handOff.ranges.count) regions")
            if let earlier = next?.process { AttachedLanding.letGo(earlier) }
        } catch {
            refuse(peer, because: error)
        }
    }
}

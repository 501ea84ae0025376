import Glibc
package import Guest
import LinuxSystem
package import Logging
import Synchronization
import Telemetry

/// A landing in the memory of another process, which attaches at a Unix socket and hands over its userfaultfd.
package final class AttachedLanding: Landing {
    private struct Attached: ~Copyable {
        let process: AttachedProcess
        let handOff: HandOff
        let source: [SourceRegion]?
        let userfaultfd: Userfaultfd
        let ranges: [PageRange]
        let aliases: [MemoryAlias?]
        let pageTable: PageTable?
        /// The reader of events while the process waits; nil if it raises none, or if its memory is used.
        var reading: UnservedMemory?

        consuming func takeUserfaultfd() -> Userfaultfd { userfaultfd }

        /// Begins to read events, for which the process would wait otherwise.
        ///
        /// - Throws: `SystemError` if no descriptor or thread is left.
        mutating func read() throws(SystemError) {
            guard userfaultfd.raisesEvents else { return }
            reading = try UnservedMemory(userfaultfd.duplicate(), ranges: ranges)
        }

        /// Leaves the events to the next reader.
        ///
        /// - Returns: what the process has done while it waited that makes its memory useless; nil if nothing.
        mutating func stopReading() -> String? {
            guard let reading = reading.take() else { return nil }
            var change: String?
            // An earlier migration that failed may have read the event of a change.
            for (index, range) in ranges.enumerated() {
                do throws(HandedDescriptorError) {
                    try userfaultfd.claim(range, name: "region \(index)")
                } catch {
                    change = "has changed its memory: \(error)"
                }
            }
            reading.end()
            return reading.change ?? change
        }
    }

    /// The process whose workload runs here.
    private enum Running {
        /// This agent accepts no such process.
        case unwanted
        /// No process has attached, and somebody may wait for one.
        case awaited(CheckedContinuation<any Workload, Never>?)
        /// A process has attached, and nobody has taken its workload yet.
        case arrived(any Workload)
        /// A process has attached; its name.
        case taken(String)

        /// Why no process may attach that runs its workload; nil if one may.
        var obstacle: AttachmentError? {
            switch self {
            case .awaited: nil
            case .unwanted:
                AttachmentError(
                    "this agent waits for a workload, and the process runs one; attach it to `pageferry source --attach`"
                )
            case .arrived(let other): AttachedLanding.occupied(other.name)
            case .taken(let other): AttachedLanding.occupied(other)
            }
        }

        var waiter: CheckedContinuation<any Workload, Never>? {
            if case .awaited(let waiter) = self { waiter } else { nil }
        }
    }

    /// A process's userfaultfd as an object, to be kept until the process has ended.
    private final class LastCopy: Sendable {
        let userfaultfd: Userfaultfd
        let reading: UnservedMemory?
        init(_ userfaultfd: consuming Userfaultfd, _ reading: UnservedMemory?) {
            self.userfaultfd = userfaultfd
            self.reading = reading
        }
    }

    /// Seconds that an arriving guest waits for a process to attach.
    private static let grace = 5.0

    private let path: String
    private let logger: Logger
    private let answerSeconds: UInt64
    private let attached = Mutex<Attached?>(nil)
    private let running: Mutex<Running>
    private let arrival: EventDescriptor
    private let openings = Mutex<Openings<Handover<StreamSocket.DescriptorMessage>>?>(nil)

    /// Makes the socket, and starts to accept processes.
    ///
    /// The socket gets mode 0600.
    ///
    /// - Parameters:
    ///   - path: the socket's path.
    ///   - takesRunning: whether one process may attach whose workload runs, for ``runningWorkload()``.
    ///   - answerSeconds: how long a process may take for an answer; ten times as long to prepare a move, and twenty times
    ///     to verify its memory.
    ///   - logger: receives what happens at the socket.
    /// - Throws: `SystemError` if the socket cannot be made, or no thread can be started.
    package init(
        socketPath path: String,
        takesRunning: Bool = false,
        answerSeconds: UInt64 = 30,
        logger: Logger
    ) throws {
        self.path = path
        running = Mutex(takesRunning ? .awaited(nil) : .unwanted)
        self.answerSeconds = answerSeconds
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
                drop: { [self] in refuse(AttachedProcess(SharedSocket($0), version: 1, answerSeconds: 1), because: $1)
                },
                onShortage: { logger.error("cannot accept a process at unix:\(path) yet: \($0)") },
                onEnd: { logger.error("no further process can attach at unix:\(path): \($0)") }
            )
        )
        self.openings.withLock { $0 = openings }
    }

    /// Whether the process that waits for a workload answers VERIFY.
    package var canVerify: Bool {
        attached.withLock { attached in
            switch attached {
            case .none: false
            case .some(let attached): attached.handOff.abilities.contains(.verify)
            }
        }
    }

    /// Stops accepting processes, and removes the socket.
    package func close() {
        // Taking the openings out breaks their reference cycle with this landing.
        openings.withLock { $0.take() }?.stop()
    }

    /// Waits for the process whose workload runs here, and returns that workload.
    ///
    /// Called once, for a landing that takes such a process.
    package func runningWorkload() async -> any Workload {
        await withCheckedContinuation { continuation in
            let arrived = running.withLock { running -> (any Workload)? in
                guard case .arrived(let workload) = running else {
                    running = .awaited(continuation)
                    return nil
                }
                running = .taken(workload.name)
                return workload
            }
            if let arrived { continuation.resume(returning: arrived) }
        }
    }

    /// Makes a workload in the process that attached last, and in its memory.
    ///
    /// Another guest can use the process if this one does not fit. The same holds if this workload is released before
    /// the process was sent any message and before any page was placed in its memory.
    ///
    /// - Throws: ``AttachmentError`` if no process attaches within 5 s or its memory does not fit, `SystemError` if the
    ///   kernel refuses memory or a descriptor.
    package func prepare(
        _ description: GuestDescription,
        onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
    ) throws -> any Workload {
        var attached = try awaitAttached(fitting: description)
        let process = attached.process
        if let change = attached.stopReading() {
            let reason = "\(process.name) \(change) while it waited"
            AttachedLanding.letGo(attached, because: "\(reason); attach again with new memory")
            throw AttachmentError("\(reason); start it again")
        }
        let (ranges, aliases, pageTable) = (attached.ranges, attached.aliases, attached.pageTable)
        let (source, abilities) = (attached.source, attached.handOff.abilities)
        let raisesEvents = attached.userfaultfd.raisesEvents
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
        let isUsed = Flag()
        // From the first use on, the agent owns the memory. This landing then drops its userfaultfd and its mappings,
        // which would keep pages of a process that has ended.
        let use: @Sendable () -> Void = {
            isUsed.raise()
            _ = kept.take()
        }
        let workload = AttachedWorkload(
            arriving: description,
            in: process,
            memory: source,
            abilities: abilities,
            logger: logger,
            onUse: use
        ) { [weak self] in
            guard let attached = kept.take() else { return }
            // No page is being placed any more, so the bitmaps are final.
            guard resident.allSatisfy({ $0.count == 0 }) else {
                return AttachedLanding.letGo(
                    attached,
                    because: "pages of a migration that failed are in its memory; attach again with new memory"
                )
            }
            self?.putBack(attached)
        }
        workload.onEnd { [logger] reason in logger.notice("\(reason)") }
        onMemory(
            WaitingMemory(
                userfaultfd: userfaultfd,
                ranges: ranges,
                resident: resident,
                aliases: aliases,
                raisesEvents: raisesEvents,
                pageTable: pageTable,
                // As long as the process is unused, `kept` holds another copy of the userfaultfd.
                keep: { object in if isUsed.isRaised { process.keep(object) } }
            )
        )
        return workload
    }

    /// A flag that is raised once; a thread that sees it raised also sees all writes before that.
    private final class Flag: Sendable {
        private let value = Atomic<Bool>(false)
        var isRaised: Bool { value.load(ordering: .acquiring) }
        func raise() { value.store(true, ordering: .releasing) }
    }

    /// Takes the process that has attached, or that attaches within the grace.
    ///
    /// - Throws: ``AttachmentError`` if there is none, or if the guest does not fit into its memory; it then stays
    ///   attached.
    private func awaitAttached(fitting description: GuestDescription) throws(AttachmentError) -> Attached {
        let begin = MonotonicClock.now()
        var obstacle = "no process has attached at \(SocketAddress.unix(path: path)); start it first"
        while true {
            let waited = Double(MonotonicClock.now() - begin) / 1_000_000_000
            guard arrival.wait(seconds: max(0, AttachedLanding.grace - waited)) else {
                throw AttachmentError(obstacle)
            }
            if let gone = dropGone() {
                obstacle = "\(gone) has ended or hung up while it waited; start it again"
                continue
            }
            if let attached = try takeAttached(fitting: description) { return attached }
        }
    }

    /// Drops an attached process that is gone, and returns its name.
    private func dropGone() -> String? {
        var taken: Attached? = nil
        let gone = attached.withLock { attached -> String? in
            guard let gone = AttachedLanding.whoIsGone(attached) else { return nil }
            swap(&taken, &attached)
            arrival.clear()
            return gone
        }
        if let taken { AttachedLanding.letGo(taken, because: "the process has hung up") }
        return gone
    }

    /// Takes the process that has attached.
    ///
    /// - Returns: nil if no process is attached any more.
    /// - Throws: ``AttachmentError`` if the guest does not fit into the memory; the process then stays attached.
    private func takeAttached(fitting description: GuestDescription) throws(AttachmentError) -> Attached? {
        var taken: Attached? = nil
        // The flag is raised and cleared only under the lock, so that it always says whether a process is attached.
        let misfit = attached.withLock { attached -> AttachmentError? in
            if let misfit = AttachedLanding.misfit(of: description, in: attached) { return misfit }
            swap(&taken, &attached)
            arrival.clear()
            return nil
        }
        if let misfit { throw misfit }
        return taken
    }

    /// The name of the attached process if it is gone; nil if it is there, or none is attached.
    private static func whoIsGone(_ attached: borrowing Attached?) -> String? {
        switch attached {
        case .none: nil
        case .some(let attached): attached.process.isGone ? attached.process.name : nil
        }
    }

    private static func misfit(of guest: GuestDescription, in attached: borrowing Attached?) -> AttachmentError? {
        let (name, ranges, own): (String, [PageRange], String?)
        switch attached {
        case .none: return nil
        case .some(let attached):
            (name, ranges, own) = (attached.process.name, attached.ranges, attached.handOff.name)
        }
        let arriving = String(decoding: guest.configuration, as: UTF8.self)
        if guest.kind == AttachedLanding.kind, let own, own != arriving {
            return AttachmentError("\(name) waits for the workload '\(own)', and '\(arriving)' would arrive")
        }
        let found = ranges.map { "\($0.pageCount) pages of \($0.pageSize) bytes" }
        let wanted = guest.regions.map { "\($0.pageCount) pages of \($0.pageSize) bytes" }
        guard found != wanted else { return nil }
        return AttachmentError(
            "\(name) does not fit the workload: its regions have \(found.joined(separator: ", ")), the workload's "
                + "\(wanted.joined(separator: ", "))"
        )
    }

    /// Makes an unused process available to the next guest, unless another process has attached meanwhile.
    private func putBack(_ unused: consuming Attached) {
        var unused = unused
        do throws(SystemError) {
            try unused.read()
        } catch {
            return AttachedLanding.letGo(unused, because: "\(error)")
        }
        var next: Attached? = unused
        attached.withLock { attached in
            guard attached == nil else { return }
            swap(&next, &attached)
            arrival.raise()
        }
        if let unused = next { AttachedLanding.letGo(unused, because: AttachedLanding.replaced) }
    }

    /// The reason for which an unused process is refused when another attaches.
    private static let replaced = "another process has attached"

    private static func letGo(_ attached: consuming Attached, because reason: String) {
        var attached = attached
        let process = attached.process
        // Without a descriptor or a thread, a process that changes its memory waits until it is killed.
        if attached.reading == nil { try? attached.read() }
        let reading = attached.reading
        // The message cannot be sent if the process has already left.
        try? process.refuse(reason)
        // Closing the last userfaultfd would turn missing pages into zeros while the process still runs.
        process.keep(LastCopy(attached.takeUserfaultfd(), reading))
    }

    private func refuse(_ process: AttachedProcess, because error: any Error) {
        logger.warning("refused \(process.name) at \(SocketAddress.unix(path: path)): \(error)")
        // The message cannot be sent if the process has already left.
        try? process.refuse("\(error)")
    }

    private func take(_ socket: consuming StreamSocket, _ message: consuming StreamSocket.DescriptorMessage) {
        let socket = SharedSocket(socket)
        let handOff: HandOff
        do throws(AttachmentError) {
            handOff = try HandOff(message.bytes)
        } catch {
            return refuse(AttachedProcess(socket, version: 1, answerSeconds: answerSeconds), because: error)
        }
        let process = AttachedProcess(socket, version: handOff.version, answerSeconds: answerSeconds)
        do {
            guard handOff.role == .waits else { return try take(running: handOff, message, of: process) }
            let memory = try HandedMemory(handOff, message, of: process)
            let (ranges, aliases, pageTable) = (memory.ranges, memory.aliases, memory.pageTable)
            let source = memory.source
            if pageTable == nil {
                logger.warning(
                    "cannot check whether \(process.name) has already touched its memory; run as its user, or as root"
                )
            }
            var next: Attached? = Attached(
                process: process,
                handOff: handOff,
                source: source,
                userfaultfd: memory.takeUserfaultfd(),
                ranges: ranges,
                aliases: aliases,
                pageTable: pageTable,
                reading: nil
            )
            try next?.read()
            try process.accept()
            attached.withLock {
                swap(&next, &$0)
                arrival.raise()
            }
            logger.notice("\(process.title) has attached with \(counted(ranges.count, "region"))")
            if let next { AttachedLanding.letGo(next, because: AttachedLanding.replaced) }
        } catch {
            refuse(process, because: error)
        }
    }

    private func take(
        running handOff: HandOff,
        _ message: borrowing StreamSocket.DescriptorMessage,
        of process: AttachedProcess
    ) throws {
        if let obstacle = running.withLock({ $0.obstacle }) { throw obstacle }
        let memory = try HandedMemory.ofRunning(handOff, message, process)
        let workload = try AttachedWorkload(
            running: AttachedLanding.description(of: handOff),
            in: process,
            memory: memory,
            abilities: handOff.abilities,
            logger: logger
        )
        try process.accept()
        logger.notice("\(workload.name) has attached with \(counted(handOff.ranges.count, "region"))")
        // Processes are taken one at a time, so no other one has attached since the check above.
        let waiter = running.withLock { running in
            let waiter = running.waiter
            running = waiter == nil ? .arrived(workload) : .taken(workload.name)
            return waiter
        }
        waiter?.resume(returning: workload)
    }

    /// The kind of a workload in an attached process, whose configuration is its name.
    package static let kind = "attached"

    private static func occupied(_ name: String) -> AttachmentError {
        // The other process may still be attached, have ended, or have moved its workload away.
        AttachmentError(
            "only one process can attach to an agent with its workload, and \(name) has; start another agent for this "
                + "process"
        )
    }

    private static func description(of handOff: HandOff) -> GuestDescription {
        GuestDescription(
            kind: kind,
            name: handOff.name ?? kind,
            configuration: Array((handOff.name ?? kind).utf8),
            regions: handOff.ranges.enumerated().map { index, range in
                GuestDescription.Region(
                    name: "region\(index)",
                    pageSize: range.pageSize,
                    pageCount: range.pageCount
                )
            }
        )
    }
}

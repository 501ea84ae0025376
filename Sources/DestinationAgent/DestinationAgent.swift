public import LinuxSystem
public import PageProtocol
import Synchronization
public import Telemetry

/// Serves the faults of a guest's memory: asks the source for each page that is touched and places what arrives.
///
/// It never decides who runs. The fault service lives as long as pages are missing; lanes come and go beneath it.
public final class DestinationAgent: Sendable {
    /// What the agent tells, each from a thread of its own.
    public enum Event: Sendable {
        /// Every page has been placed.
        case everyPageResident
        /// Every page that was to be fetched on the bulk lane has come.
        case everyRunFetched
        /// A lane broke, or its peer broke the protocol. Faults wait until other lanes are attached.
        case laneLost(Lane, reason: String)
        /// Pages can be placed no more: the memory's process is gone, or no memory is left. Other lanes bring them again.
        case failed(reason: String)
        /// A fault on a page that had come before cannot be answered for now: no memory is left. Such faults are raised again
        /// each second; told once a second at most.
        case faultUnanswered(reason: String)
    }

    /// What has arrived so far.
    public struct Progress: Hashable, Sendable {
        /// Pages in all regions.
        public var pagesTotal = 0
        /// Pages placed.
        public var pagesResident = 0
        /// Pages placed because somebody waited for them.
        public var demand = 0
        /// Pages placed because somebody was expected to touch them.
        public var prefetched = 0
        /// Those of them that nothing shows to have been used.
        public var prefetchedUnused = 0
        /// Pages placed out of the push, with bytes.
        public var pushed = 0
        /// Pages placed out of the push as known zeros.
        public var zero = 0
        /// Pages that the process dropped or unmapped before they came.
        public var removed = 0
        /// Pages that came again after they had been placed.
        public var duplicate = 0
        /// Pages that somebody waits for now.
        public var waiting = 0

        /// Nothing yet.
        public init() {}
    }

    /// Who asks for the pages that are touched.
    private enum Faults: Sendable {
        case services([FaultService])
        case inThread(InThreadFaults)

        func use(_ lanes: LaneSockets?) {
            switch self {
            case .services(let services):
                for (index, service) in services.enumerated() { service.use(lanes?.urgentLane(index)) }
            case .inThread(let faults): faults.use(lanes?.urgentLane(0))
            }
        }
    }

    private struct Lanes {
        var sockets: LaneSockets?
        var isStopped = false
    }

    let memory: ArrivingMemory
    private let faults: Faults
    private let faultThreads = ThreadGroup()
    private let bulkThreads = ThreadGroup()
    private let lanes = Mutex(Lanes())
    private let isStarted = Atomic<Bool>(false)
    private let keep: Keep?
    private let onEvent: @Sendable (Event) -> Void

    /// Keeps an object for as long as somebody may read the memory.
    public typealias Keep = @Sendable (_ object: any AnyObject & Sendable) -> Void

    /// Makes an agent for a guest's memory.
    ///
    /// - Parameters:
    ///   - userfaultfd: where the memory is registered; kept open until ``stop()``.
    ///   - ranges: the memory, in the order of the announcement.
    ///   - resident: which pages have been placed, one bitmap a range.
    ///   - aliases: where this process has mapped the memory too, one a range, or none at all: pages are received straight
    ///     into it. Such a range is registered for minor faults too.
    ///   - table: the announced regions.
    ///   - prefetch: which pages are asked for before they are touched.
    ///   - faultThreads: how many threads serve faults, each on an urgent lane of its own.
    ///   - resolvesInThread: whether a thread that touches an absent page fetches it itself: the memory is this
    ///     process's and the userfaultfd has the feature SIGBUS. Nothing is asked for ahead then.
    ///   - removals: where the userfaultfd has the feature EVENT_REMOVE, what reads its events.
    ///   - pageTable: with `removals`, the page table of the memory's process.
    ///   - touches: where the pages that are touched first are noted; nil for nowhere.
    ///   - keep: keeps what incomplete memory needs after ``stop()``; nil to keep that until this process ends.
    ///   - onEvent: called from the agent's threads; must not block.
    public init(
        userfaultfd: consuming Userfaultfd,
        ranges: [PageRange],
        resident: [PageBitmap],
        aliases: [MemoryAlias?] = [],
        table: RegionTable,
        prefetch: Prefetch = .streams(),
        faultThreads: Int = 1,
        resolvesInThread: Bool = false,
        removals: Removals? = nil,
        pageTable: PageTable? = nil,
        touches: TouchLog? = nil,
        keep: Keep? = nil,
        onEvent: @escaping @Sendable (Event) -> Void
    ) throws(SystemError) {
        self.keep = keep
        // Threads fetch pages of this process only.
        let ownPages = resolvesInThread && pageTable == nil && ranges.contains { $0.isHuge }
        let pageTable = ownPages ? try PageTable() : pageTable
        let pushed = resolvesInThread ? try PushedWanted() : nil
        memory = try ArrivingMemory(
            userfaultfd: userfaultfd,
            ranges: ranges,
            resident: resident,
            aliases: aliases,
            table: table,
            pushedWanted: pushed,
            removals: removals,
            pageTable: pageTable,
            touches: touches,
            onEvent: onEvent
        )
        if let pushed {
            faults = .inThread(try InThreadFaults(memory: memory, pushed: pushed, onEvent: onEvent))
        } else {
            let policy = prefetch.makePolicy(for: memory.ranges)
            var services: [FaultService] = []
            for _ in 0..<faultThreads {
                services.append(try FaultService(memory: memory, policy: policy, onEvent: onEvent))
            }
            faults = .services(services)
        }
        self.onEvent = onEvent
    }

    /// Takes pages from now on, and starts to read faults. Without lanes they wait. Those that an earlier process has read
    /// are raised again.
    public func start() throws(SystemError) {
        guard !isStarted.exchange(true, ordering: .acquiringAndReleasing) else { return }
        memory.open()
        memory.removals?.takeUp(memory)
        memory.wakeAll()
        switch faults {
        case .inThread(let faults): faults.start()
        case .services(let services): for service in services { try run(service) }
        }
    }

    private func run(_ service: FaultService) throws(SystemError) {
        service.begin()
        do throws(SystemError) {
            try faultThreads.run("faults", pace: .urgent) { service.run() }
        } catch {
            service.fail()
            throw error
        }
    }

    /// Takes the lanes of a connection to the source, in place of those before; what is waited for is asked for again.
    /// Returns at once, and so does ``hangUp()``: a guest can hold up the threads that place its pages.
    ///
    /// - Parameters:
    ///   - urgent: one for each thread that serves faults; one where threads fetch their pages themselves.
    ///   - runs: pages to ask for on the bulk lane, in this order, which the peer answers there.
    public func attach(
        urgent: [SharedSocket],
        bulk: SharedSocket,
        fetching runs: [PageRun] = []
    ) throws(SystemError) {
        let sockets = LaneSockets(urgent: urgent, bulk: bulk)
        let (earlier, isStopped) = lanes.withLock { lanes in
            defer { lanes.sockets = sockets }
            return (lanes.sockets, lanes.isStopped)
        }
        earlier?.shutdown()
        // Of a source that comes again after the last page nothing is awaited.
        guard !isStopped else { return }
        faults.use(sockets)
        if case .services(let services) = faults { for service in services where service.hasEnded { try run(service) } }
        try bulkThreads.run("bulk-place", pace: .background) { [memory, onEvent] in
            var receiver = BulkReceiver(sockets.bulkLane, fetching: runs, memory: memory)
            receiver.run(onEvent)
        }
    }

    /// Ends the lanes, and returns at once. Faults go on to be read, and wait.
    public func hangUp() {
        lanes.withLock { $0.sockets.take() }?.shutdown()
        faults.use(nil)
    }

    /// Ends the lanes, and waits until nothing more is placed from them. Faults go on to be read, and wait.
    public func detach() {
        hangUp()
        waitForLanes()
    }

    /// Waits until nothing more is placed from lanes that have ended. No others are attached meanwhile.
    public func waitForLanes() {
        waitUntilTurned()
        bulkThreads.join()
    }

    /// Waits until the threads that serve faults have turned to the newest lanes.
    func waitUntilTurned() {
        if case .services(let services) = faults { for service in services { service.waitUntilTurned() } }
    }

    /// Ends the lanes and the fault service, once, and gives complete memory back to the kernel. Waits for all threads, which
    /// the guest can hold up.
    ///
    /// While pages are missing the userfaultfd stays open for as long as somebody may read them, so that their readers wait
    /// on and never see zeros.
    public func stop() {
        let wasStopped = lanes.withLock { lanes in
            defer { lanes.isStopped = true }
            return lanes.isStopped
        }
        guard !wasStopped else { return }
        memory.beginToClose()
        detach()
        // While events are read still: whoever drops memory waits for that, or drops memory that is the kernel's again.
        let isComplete = memory.isComplete
        if isComplete { memory.close() }
        switch faults {
        case .inThread(let faults): faults.stop()
        case .services(let services):
            for service in services { service.stop() }
            faultThreads.join()
        }
        memory.dropAliases()
        if isComplete {
            // A failure leaves nobody waiting but who has ended.
            try? memory.removals?.drain(memory)
        } else {
            keepReadersWaiting()
        }
    }

    /// Keeps the last copy of the userfaultfd.
    private func keepReadersWaiting() {
        let object: any AnyObject & Sendable =
            switch faults {
            case .inThread(let faults): faults.keeper()
            case .services: memory
            }
        // Without somebody who knows the memory's end, for ever.
        if let keep { keep(object) } else { _ = Unmanaged.passRetained(object) }
    }

    /// Gives complete memory back to the kernel: nothing in it faults any more. Events of dropped memory that are under way
    /// are read all the same.
    public func giveBack() {
        precondition(memory.isComplete, "missing pages would read as zeros")
        memory.close()
    }

    /// Whether every page has been placed or dropped.
    public var isComplete: Bool { memory.isComplete }

    /// The page that somebody has waited for longest, since when in nanoseconds of ``MonotonicClock``; nil if there is none.
    public var longestWaited: (region: Int, page: Int, since: UInt64)? { memory.inFlight.oldest }

    /// Which pages have been placed: a bit a page for each region.
    public var received: [[UInt8]] { memory.resident.map { $0.bytes(of: 0..<$0.pageCount) } }

    /// What has arrived so far.
    public var progress: Progress { memory.progress }

    /// From reading a fault's event to its page placed, one recorder a thread that places.
    public var service: [LatencyRecorder] { [memory.urgentService, memory.bulkService] }
}

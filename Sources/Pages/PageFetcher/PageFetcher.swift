package import Compression
package import LinuxSystem
package import PageProtocol
import Synchronization
package import Telemetry

/// Serves the faults of a guest's memory: requests each touched page from the source, and places the pages that arrive.
///
/// The agent never decides who runs the workload. The fault threads live as long as pages are missing; lanes may be
/// attached and lost meanwhile.
package final class PageFetcher: Sendable {
    /// The names of the agent's threads, as `top -H` shows them.
    package static let threadNames = [faultThread, bulkThread]
    private static let faultThread = "faults"
    private static let bulkThread = "bulk-place"

    /// An event of the agent, delivered from one of its threads.
    package enum Event: Sendable {
        /// Every page has been placed.
        case everyPageResident
        /// A fault thread has ended because of an error; the next call of `attach` starts another.
        case failed(reason: String)
        /// Missing pages can never be placed, because of what the process has done to its memory.
        ///
        /// No further page is placed, and readers of missing pages wait.
        case memoryLost(reason: String)
        /// The process has forked for the first time, and its children wait for their missing pages for ever.
        case forked
        /// A fault on a page that was placed before cannot be answered now: no memory is left, or the same answer was
        /// given too often.
        ///
        /// Such faults are raised again each second. This event is sent at most once per second.
        case faultUnanswered(reason: String)
    }

    /// An event of one connection's lanes, delivered from a thread of the agent to the closure that `attach` received.
    package enum LaneEvent: Sendable {
        /// Every page of the runs to fetch on the bulk lane has arrived.
        case everyRunFetched
        /// A lane broke, or the peer broke the protocol on it; faults wait until other lanes are attached.
        case lost(Lane, reason: String)
        /// Pages can no longer be placed from these lanes, since the memory's process is gone or no memory is left.
        ///
        /// The next lanes bring these pages again.
        case placementFailed(reason: String)
    }

    /// The pages that have arrived so far, by the way in which they came.
    package struct Progress: Hashable, Sendable {
        /// Pages in all regions.
        package var pagesTotal = 0
        /// Pages placed.
        package var pagesResident = 0
        /// Bytes in all regions.
        package var bytesTotal = 0
        /// Bytes of the pages placed.
        package var bytesResident = 0
        /// Bytes of the pages that are missing.
        package var bytesLeft: Int { bytesTotal - bytesResident }
        /// Pages placed because a fault waited for them.
        package var demand = 0
        /// Pages placed because a policy expected them to be touched.
        package var prefetched = 0
        /// The pages among ``prefetched`` without evidence that they were used.
        package var prefetchedUnused = 0
        /// Pages that the push brought with their bytes.
        package var pushed = 0
        /// Pages that the push brought as known zeros.
        package var zero = 0
        /// The pages among ``demand`` and ``prefetched`` that came as known zeros.
        package var requestedZero = 0
        /// Pages that the process dropped or unmapped before they arrived.
        package var removed = 0
        /// Pages that the memory's file held before they arrived.
        package var found = 0
        /// Pages that arrived again after they had been placed.
        package var duplicate = 0
        /// Pages that faults wait for now.
        package var waiting = 0
        /// The time at which the oldest waiting fault was read, in nanoseconds of `MonotonicClock`; nil if none waits.
        package var waitingSince: UInt64?

        /// Makes counts of zero.
        package init() {}
    }

    /// The threads that request touched pages: fault threads, or the threads that touch the pages.
    private enum Faults: Sendable {
        case services([FaultService])
        case inThread(InThreadFaults)

        func use(_ lanes: SourceLanes?) {
            switch self {
            case .services(let services):
                for (index, service) in services.enumerated() { service.use(lanes?.urgentLane(index)) }
            case .inThread(let faults): faults.use(lanes?.urgentLane(0))
            }
        }
    }

    private struct Lanes {
        var sockets: SourceLanes?
        var isStopped = false
    }

    let memory: ArrivingMemory
    private let faults: Faults
    private let faultThreads = ThreadGroup()
    private let bulkThreads = ThreadGroup()
    private let lanes = Mutex(Lanes())
    private let isStarted = Atomic<Bool>(false)
    private let keep: Keep?

    /// Keeps an object for as long as any thread may read the memory.
    package typealias Keep = @Sendable (_ object: any AnyObject & Sendable) -> Void

    /// Makes an agent for a guest's memory.
    ///
    /// - Parameters:
    ///   - userfaultfd: the userfaultfd with which the memory is registered; stays open until ``stop()``.
    ///   - ranges: the memory, in the order of the announcement.
    ///   - resident: the pages that are already placed, one bitmap per range.
    ///   - aliases: this process's own mappings of the memory, one per range, or none at all. Pages are received
    ///     directly into an alias, and its range is also registered for minor faults.
    ///   - table: the announced regions.
    ///   - prefetch: the policy that requests pages before they are touched.
    ///   - faultThreads: the number of threads that serve faults, each on an urgent lane of its own.
    ///   - resolvesInThread: whether a thread that touches an absent page fetches that page itself. This needs memory
    ///     of this process and a userfaultfd with the feature SIGBUS, and disables prefetch.
    ///   - events: the reader of the userfaultfd's events, if `Userfaultfd.raisesEvents`.
    ///   - pageTable: the page table of the memory's process; needed for huge pages with `events`.
    ///   - touches: the log of pages in the order of their first touch; nil for none.
    ///   - waitsForMemory: whether a page for which no memory is left waits for memory, and ``shortage`` says so. If not,
    ///     ``LaneEvent/placementFailed(reason:)`` ends the lanes.
    ///   - polling: the longest time that a thread which serves faults polls for an event before it sleeps; zero to
    ///     never poll.
    ///   - grid: counts the pages by their place, for regions in the order of the announcement; nil to count none.
    ///   - keep: keeps an object that incomplete memory needs after ``stop()``; nil to keep that object until this
    ///     process exits.
    ///   - onEvent: called from the agent's threads; must not block.
    package init(
        userfaultfd: consuming Userfaultfd,
        ranges: [PageRange],
        resident: [PageBitmap],
        aliases: [MemoryAlias?] = [],
        table: RegionTable,
        prefetch: Prefetch = .streams(),
        faultThreads: Int = 1,
        resolvesInThread: Bool = false,
        events: MemoryEvents? = nil,
        pageTable: PageTable? = nil,
        touches: TouchLog? = nil,
        waitsForMemory: Bool = false,
        polling: Duration = PollBudget.usualLimit,
        grid: PageGrid? = nil,
        keep: Keep? = nil,
        onEvent: @escaping @Sendable (Event) -> Void
    ) throws(SystemError) {
        self.keep = keep
        // Threads fetch only pages of this process, so its own page table is used.
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
            events: events,
            pageTable: pageTable,
            touches: touches,
            waitsForMemory: waitsForMemory,
            grid: grid,
            onEvent: onEvent
        )
        if let pushed {
            faults = .inThread(try InThreadFaults(memory: memory, pushed: pushed, polling: polling, onEvent: onEvent))
        } else {
            let policy = prefetch.makePolicy(for: memory.ranges)
            var services: [FaultService] = []
            for _ in 0..<faultThreads {
                services.append(
                    try FaultService(
                        memory: memory,
                        policy: policy,
                        polling: polling,
                        isAlone: faultThreads == 1,
                        onEvent: onEvent
                    )
                )
            }
            faults = .services(services)
        }
    }

    /// Lets pages arrive and starts to read faults; without lanes the faults wait.
    ///
    /// Faults that an earlier process has read are raised again.
    package func start() throws(SystemError) {
        guard !isStarted.exchange(true, ordering: .acquiringAndReleasing) else { return }
        memory.open()
        memory.events?.takeUp(memory)
        memory.wakeAll()
        switch faults {
        case .inThread(let faults): faults.start()
        case .services(let services): for service in services { try run(service) }
        }
    }

    private func run(_ service: FaultService) throws(SystemError) {
        service.begin()
        do throws(SystemError) {
            try faultThreads.run(PageFetcher.faultThread, pace: .urgent) { service.run() }
        } catch {
            service.fail()
            throw error
        }
    }

    /// Attaches the lanes of a connection to the source, in place of earlier lanes, and repeats the requests for wanted
    /// pages.
    ///
    /// The call returns at once and does not wait for the threads that place pages, which a guest can delay;
    /// ``hangUp()`` does the same.
    ///
    /// - Parameters:
    ///   - urgent: the urgent lanes, one per fault thread; one lane if threads fetch their pages themselves.
    ///   - bulk: the bulk lanes, each placed by a thread of its own; none if the source pushes nothing, and nothing is
    ///     requested there.
    ///   - answersAhead: whether the source has the capability AHEAD_REQUEST.
    ///   - codecs: the codecs that this side has announced; pages that are compressed otherwise end the lanes.
    ///   - runs: pages to request on the first bulk lane, in this order; the peer answers them there.
    ///   - rate: how fast every other page is requested on that lane, after `runs`; nil to request none.
    ///   - tell: called from the agent's threads with the events of these lanes, even after other lanes have replaced
    ///     them; must not block.
    package func attach(
        urgent: [SharedSocket],
        bulk: [SharedSocket],
        answersAhead: Bool = false,
        inflating codecs: Set<Codec> = [],
        fetching runs: [PageRun] = [],
        filling rate: FillRate? = nil,
        telling tell: @escaping @Sendable (LaneEvent) -> Void
    ) throws(SystemError) {
        let sockets = SourceLanes(
            urgent: urgent,
            bulk: bulk,
            answersAhead: answersAhead,
            inflating: codecs,
            telling: tell
        )
        let (earlier, isStopped) = lanes.withLock { lanes in
            defer { lanes.sockets = sockets }
            return (lanes.sockets, lanes.isStopped)
        }
        earlier?.shutdown()
        // A source that reconnects after the last page was placed has nothing more to send.
        guard !isStopped else { return }
        faults.use(sockets)
        if case .services(let services) = faults { for service in services where service.hasEnded { try run(service) } }
        for (index, lane) in sockets.bulkLanes.enumerated() {
            let (runs, rate) = index == 0 ? (runs, rate) : ([], nil)
            try bulkThreads.run(PageFetcher.bulkThread, pace: .background) { [memory] in
                var receiver = BulkReceiver(lane, fetching: runs, filling: rate, memory: memory)
                receiver.run()
            }
        }
    }

    /// Shuts the lanes down and returns at once; faults are still read, and wait.
    package func hangUp() {
        lanes.withLock { $0.sockets.take() }?.shutdown()
        faults.use(nil)
    }

    /// Shuts the lanes down and waits until no page of them is placed any more; faults are still read, and wait.
    package func detach() {
        hangUp()
        waitForLanes()
    }

    /// Waits until no page of ended lanes is placed any more; no lanes may be attached meanwhile.
    package func waitForLanes() {
        waitUntilTurned()
        bulkThreads.join()
    }

    /// Waits until every fault thread has switched to the newest lanes.
    func waitUntilTurned() {
        if case .services(let services) = faults { for service in services { service.waitUntilTurned() } }
    }

    /// Ends the lanes and the fault threads, and unregisters complete memory; a second call does nothing.
    ///
    /// The call waits for all threads, which the guest can delay. While pages are missing, the userfaultfd stays open
    /// for as long as any thread may read them, so that readers wait and never see zeros.
    package func stop() {
        let wasStopped = lanes.withLock { lanes in
            defer { lanes.isStopped = true }
            return lanes.isStopped
        }
        guard !wasStopped else { return }
        memory.beginToClose()
        detach()
        // Complete memory is unregistered while events are still read: a thread that has dropped memory waits until its
        // event is read. A drop after this sends no event.
        let isClosed = memory.isComplete && memory.close()
        switch faults {
        case .inThread(let faults): faults.stop()
        case .services(let services):
            for service in services { service.stop() }
            faultThreads.join()
        }
        memory.dropAliases()
        if isClosed {
            // If this fails, the only threads that wait are those of a process that has exited.
            try? memory.events?.drain(memory)
        } else {
            keepReadersWaiting()
        }
    }

    /// Keeps the last copy of the userfaultfd open.
    private func keepReadersWaiting() {
        let object: any AnyObject & Sendable =
            switch faults {
            case .inThread(let faults): faults.keeper()
            case .services: KeptMemory(memory)
            }
        // Without `keep`, no one reports the end of the memory, so the object is kept until this process exits.
        if let keep { keep(object) } else { _ = Unmanaged.passRetained(object) }
    }

    /// Memory whose readers wait, while its process need not wait for a reader of events.
    private final class KeptMemory: Sendable {
        private let memory: ArrivingMemory
        private let reading: UnservedMemory?

        init(_ memory: ArrivingMemory) {
            self.memory = memory
            // Without a descriptor or a thread, a process that changes its memory waits until it is killed.
            reading = memory.events == nil ? nil : try? UnservedMemory(memory.userfaultfd.duplicate())
        }
    }

    /// Unregisters complete memory from the userfaultfd, so that accesses no longer fault.
    ///
    /// Events of dropped memory that are on their way are still read. Every page must be placed or dropped.
    ///
    /// - Returns: whether the process needs no reader of events any more once ``stop()`` has returned. A range that
    ///   stays registered, such as one that the process has mapped anew, lacks no page, but has events.
    package func giveBack() -> Bool {
        precondition(memory.isComplete, "missing pages would read as zeros")
        return memory.close()
    }

    /// Whether the memory is gone: no process has it any more.
    package var isMemoryGone: Bool { memory.userfaultfd.isMemoryGone }

    /// Whether every page has been placed or dropped.
    package var isComplete: Bool { memory.isComplete }

    /// The page that faults have waited for longest, and since when, in nanoseconds of `MonotonicClock`; nil if none
    /// waits.
    package var longestWaited: (region: Int, page: Int, since: UInt64)? { memory.faults.oldest }

    /// What the kernel lacks, so that pages wait; nil if it lacks nothing.
    ///
    /// A shortage counts once it has lasted for 0.2 s, until none was met for 2 s or every page is here.
    package var shortage: Shortage? { isComplete ? nil : memory.shortage.current(at: MonotonicClock.now()) }

    /// The placed pages: one bit per page for each region.
    package var received: [[UInt8]] { memory.resident.map { $0.bytes(of: 0..<$0.pageCount) } }

    /// The pages that have arrived so far.
    package var progress: Progress { memory.progress }

    /// The pages that were requested and have not arrived.
    package var askedCount: Int {
        memory.ranges.indices.reduce(0) { $0 + memory.faults.wantedCount(0..<memory.ranges[$1].pageCount, region: $1) }
    }

    /// The number of pages of a run that have arrived or were removed.
    package func presentCount(of pages: Range<Int>, region: Int) -> Int { memory.resident[region].count(in: pages) }

    /// Where the pages of each kind lie; nil if they are not counted by their place.
    package var map: LiveMap? {
        memory.grid?.map(
            present: presentCount,
            asked: { memory.faults.wantedCount($0, region: $1) }
        )
    }

    /// The bytes that each lane has brought.
    package var laneBytes: [LaneBytes.Lane] { memory.laneBytes.lanes }

    /// The times from reading a fault's event to placing its page, recorded for urgent lanes and for the bulk lane.
    package var service: [LatencyRecorder] { [memory.urgentService, memory.bulkService] }
}

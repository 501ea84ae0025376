import LinuxSystem
import PageProtocol
import Synchronization
import Telemetry

/// The guest's memory while its pages arrive: what has been placed, what is waited for, and how pages are placed.
final class ArrivingMemory: Sendable {
    let ranges: [PageRange]
    let table: RegionTable
    /// Set after a page was placed, never before.
    let resident: [PageBitmap]
    /// Where the memory is mapped here too, one a range.
    ///
    /// `nonisolated(unsafe)`: changed only when all threads that place pages have ended.
    nonisolated(unsafe) private(set) var aliases: [MemoryAlias?]
    /// Set when a page is asked for, and kept: a page is asked for once on each connection.
    let wanted: [PageBitmap]
    /// Set when a page was asked for before anybody touched it.
    let expected: [PageBitmap]
    /// Pages that were asked for so and that nothing shows to have been used.
    let prefetchedUnused = Atomic<Int>(0)
    let inFlight = InFlightFaults()
    /// Told when the push has brought a page that somebody waits for; nil where nobody is to be told.
    private let pushedWanted: PushedWanted?
    let urgentService = LatencyRecorder()
    let bulkService = LatencyRecorder()
    let pagesTotal: Int
    let onEvent: @Sendable (DestinationAgent.Event) -> Void

    let userfaultfd: Userfaultfd
    /// Huge pages that a thread places or has placed, and pages of aliases while a thread writes to them.
    let claimed: [PageBitmap]
    /// What is placed for a huge page of zeros; never written, so that it takes no memory.
    let zeros: Mapping
    private let demand = Atomic<Int>(0)
    private let pushed = Atomic<Int>(0)
    private let prefetched = Atomic<Int>(0)
    private let zero = Atomic<Int>(0)
    let duplicate = Atomic<Int>(0)
    private let removed = Atomic<Int>(0)
    private let residentCount = Atomic<Int>(0)
    /// Set by LISTEN: before it no page is taken.
    private let isOpen = Atomic<Bool>(false)
    /// No page is waited for any more.
    private let isClosing = Atomic<Bool>(false)
    /// When it was last told that a fault cannot be answered; 0 for never.
    let lastTold = Atomic<UInt64>(0)
    /// Where the process drops memory and tells so.
    let removals: Removals?
    /// Where the pages that are touched are noted; nil where they are not.
    let touches: TouchLog?
    /// Where it can be asked which pages are there.
    let pageTable: PageTable?

    init(
        userfaultfd: consuming Userfaultfd,
        ranges: [PageRange],
        resident: [PageBitmap],
        aliases: [MemoryAlias?] = [],
        table: RegionTable,
        pushedWanted: PushedWanted? = nil,
        removals: Removals? = nil,
        pageTable: PageTable? = nil,
        touches: TouchLog? = nil,
        onEvent: @escaping @Sendable (DestinationAgent.Event) -> Void
    ) throws(SystemError) {
        self.pushedWanted = pushedWanted
        self.removals = removals
        self.pageTable = pageTable
        self.touches = touches
        self.userfaultfd = userfaultfd
        self.ranges = ranges
        self.resident = resident
        let aliases = aliases.isEmpty ? ranges.map { _ in nil } : aliases
        self.aliases = aliases
        self.table = table
        self.onEvent = onEvent
        var wanted: [PageBitmap] = []
        for range in ranges { wanted.append(try PageBitmap(pageCount: range.pageCount)) }
        self.wanted = wanted
        var expected: [PageBitmap] = []
        for range in ranges { expected.append(try PageBitmap(pageCount: range.pageCount)) }
        self.expected = expected
        var claimed: [PageBitmap] = []
        for (range, alias) in zip(ranges, aliases) {
            claimed.append(try PageBitmap(pageCount: range.isHuge || alias != nil ? range.pageCount : 0))
        }
        self.claimed = claimed
        zeros = try Mapping(anonymousBytes: ranges.map(\.pageSize).max() ?? 4096)
        // A copy from memory that is not mapped needs a second huge page for a moment, which the pool may not have.
        try zeros.advise(.populate)
        pagesTotal = ranges.reduce(0) { $0 + $1.pageCount }
        residentCount.store(resident.reduce(0) { $0 + $1.count }, ordering: .relaxed)
    }

    /// The region and page that hold an address; nil for one of no region.
    @inline(__always)
    func place(of address: UInt64) -> (region: Int, page: Int)? {
        for region in ranges.indices {
            let range = ranges[region]
            guard address >= range.address, address - range.address < range.byteCount else { continue }
            return (region, Int(address - range.address) / range.pageSize)
        }
        return nil
    }

    /// Whether all pages of a run are there.
    func isResident(_ run: PageRun) -> Bool {
        let resident = resident[Int(run.region)]
        return (Int(run.first)..<Int(run.first) + Int(run.count)).allSatisfy { resident.contains($0) }
    }

    /// How a run of pages came.
    enum Origin {
        /// On the urgent lane.
        case demand
        /// On the bulk lane.
        case push
    }

    /// Places a run that lies in its region.
    ///
    /// - Parameter source: the run's bytes, or nil for zeros.
    @inline(__always)
    func place(_ run: PageRun, from source: UnsafeRawPointer?, origin: Origin) throws(PlacementFailure) {
        let region = Int(run.region)
        let range = ranges[region]
        if let removals { return try place(run, from: source, origin: origin, besides: removals) }
        if let alias = aliases[region] { return try placeZeros(run, in: alias, origin: origin) }
        if range.isHuge { return try placeHuge(run, from: source, origin: origin) }
        let first = Int(run.first)
        let end = first + Int(run.count)
        var page = first
        var step = end - first
        while page < end {
            let address = range.address(ofPage: page)
            let byteCount = min(step, end - page) * range.pageSize
            let placement =
                if let source {
                    userfaultfd.copy(to: address, from: source + (page - first) * range.pageSize, byteCount: byteCount)
                } else {
                    userfaultfd.zero(address, byteCount: byteCount)
                }
            switch placement {
            case .placed(let bytes):
                let placed = page..<(page + bytes / range.pageSize)
                note(placed, region: region, isZero: source == nil, origin: origin)
                page = placed.upperBound
            case .present:
                // Our own record says who placed it; whoever waits for it is let go.
                duplicate.add(1, ordering: .relaxed)
                userfaultfd.wake(address, byteCount: range.pageSize)
                note(page..<(page + 1), region: region, isZero: source == nil, origin: origin)
                page += 1
            case .again: try pause()
            case .unmapped where byteCount > range.pageSize:
                // The kernel says the same of a run that lies in two mappings: believed of a single page only.
                step = 1
            case .unmapped:
                noteUnmapped(page, region: region)
                page += 1
            case .gone: throw .gone
            case .noMemory: throw .noMemory
            case .failed(let errno): throw .refused("\(errno)")
            }
        }
    }

    /// Answers a fault on a page that was placed before: just now, or the process has dropped it since, and it reads as
    /// zeros, as the kernel itself would show it.
    @inline(never)
    func answerAgain(_ page: Int, region: Int) throws(PlacementFailure) {
        let range = ranges[region]
        let address = range.address(ofPage: page)
        if aliases[region] != nil, try answerFromFile(address, byteCount: range.pageSize) { return }
        let placement =
            if range.isHuge {
                userfaultfd.copy(to: address, from: zeros.base, byteCount: range.pageSize)
            } else {
                userfaultfd.zero(address, byteCount: range.pageSize)
            }
        switch placement {
        case .placed: break
        // Of a huge page that is there nobody would have been told; where the pool is exhausted, waking raises the same
        // fault at once.
        case .present where range.isHuge && pageTable == nil: throw .noHugePage
        case .present where try !isPlaced(at: address, in: range): throw .noHugePage
        case .present, .again, .unmapped: userfaultfd.wake(address, byteCount: range.pageSize)
        case .gone: break  // Nobody waits in memory that is not there.
        case .noMemory: throw .noMemory
        case .failed(let errno): throw .refused("\(errno)")
        }
    }

    @inline(__always)
    func note(_ pages: Range<Int>, region: Int, isZero: Bool, origin: Origin) {
        let added = resident[region].insert(run: pages)
        InFlightFaults.fence()
        if inFlight.count > 0 { settle(pages, region: region, origin: origin) }
        guard added > 0 else { return }
        switch (origin, isZero) {
        case (.demand, _):
            let ahead = expected[region].count == 0 ? 0 : min(added, pages.count { expected[region].contains($0) })
            prefetched.add(ahead, ordering: .relaxed)
            demand.add(added - ahead, ordering: .relaxed)
        case (.push, true): zero.add(added, ordering: .relaxed)
        case (.push, false): pushed.add(added, ordering: .relaxed)
        }
        noteResident(added)
    }

    /// Notes that a page is mapped no more: it is never placed. Who waits for it is let go, and finds no memory.
    @inline(never)
    func noteUnmapped(_ page: Int, region: Int) {
        noteRemoved(page..<page + 1, region: region)
        userfaultfd.wake(ranges[region].address(ofPage: page), byteCount: ranges[region].pageSize)
    }

    /// Lets whoever is changing a mapping go first.
    ///
    /// - Throws: if the agent ends: then nobody waits for that.
    @inline(never)
    func pause() throws(PlacementFailure) {
        guard !isClosing.load(ordering: .relaxed) else { throw .ended }
        JoinedThread.yield()
    }

    /// From now on pages are taken.
    func open() { isOpen.store(true, ordering: .releasing) }

    /// From now on a mapping that is changing is not waited for.
    func beginToClose() { isClosing.store(true, ordering: .relaxed) }

    /// Returns if pages are taken.
    @inline(__always)
    func requireOpen(_ run: PageRun) throws(PagesBeforeListen) {
        guard isOpen.load(ordering: .relaxed) else { throw PagesBeforeListen(run: run) }
    }

    /// Raises all faults again that wait.
    func wakeAll() {
        for range in ranges { userfaultfd.wake(range.address, byteCount: Int(range.byteCount)) }
    }

    /// Notes that pages were dropped: those that were missing are never placed.
    func noteRemoved(_ pages: Range<Int>, region: Int) {
        let added = resident[region].insert(run: pages)
        InFlightFaults.fence()
        if inFlight.count > 0 { for page in pages { _ = inFlight.end(region: region, page: page) } }
        guard added > 0 else { return }
        removed.add(added, ordering: .relaxed)
        noteResident(added)
    }

    @inline(__always)
    private func noteResident(_ added: Int) {
        if residentCount.add(added, ordering: .acquiringAndReleasing).newValue == pagesTotal {
            onEvent(.everyPageResident)
        }
    }

    /// Takes the time of those of the pages that were waited for.
    @inline(__always)
    private func settle(_ pages: Range<Int>, region: Int, origin: Origin) {
        let now = MonotonicClock.now()
        let recorder = origin == .demand ? urgentService : bulkService
        for page in pages {
            guard let since = inFlight.end(region: region, page: page) else { continue }
            recorder.record(nanoseconds: now &- since)
            if origin == .push { pushedWanted?.flag.raise() }
        }
    }

    /// Unmaps the memory here: the pages of a process that has ended go with it. No thread places anything any more.
    func dropAliases() {
        // Threads that fetch their own pages never end, and have no aliases.
        guard hasAliases else { return }
        aliases = ranges.map { _ in nil }
    }

    /// Gives complete memory back to the kernel; a failure leaves it registered, which harms nobody.
    func close() {
        for range in ranges { try? userfaultfd.unregister(range) }
    }

    var isComplete: Bool { residentCount.load(ordering: .acquiring) == pagesTotal }

    var progress: DestinationAgent.Progress {
        var progress = DestinationAgent.Progress()
        progress.pagesTotal = pagesTotal
        progress.pagesResident = residentCount.load(ordering: .relaxed)
        progress.demand = demand.load(ordering: .relaxed)
        progress.pushed = pushed.load(ordering: .relaxed)
        progress.prefetched = prefetched.load(ordering: .relaxed)
        progress.prefetchedUnused = min(progress.prefetched, prefetchedUnused.load(ordering: .relaxed))
        progress.zero = zero.load(ordering: .relaxed)
        progress.removed = removed.load(ordering: .relaxed)
        progress.duplicate = duplicate.load(ordering: .relaxed)
        progress.waiting = inFlight.count
        return progress
    }
}

/// Raised when the push has brought a page that a thread waits for which fetches its own pages.
final class PushedWanted: Sendable {
    let flag: EventDescriptor

    init() throws(SystemError) { flag = try EventDescriptor() }
}

/// A page that could not be placed, with the reason for a person.
struct PlacementFailure: Error, CustomStringConvertible {
    let reason: String
    var description: String { reason }

    static let gone = Self(reason: "the guest's memory is gone: its process has ended")
    static let ended = Self(reason: "the agent takes no more pages")
    static let noMemory = Self(reason: "no memory is left on this host to place a page in")
    static let noHugePage = Self(
        reason: "no huge page is left on this host to place a page in, or it was there before; raise vm.nr_hugepages"
    )
    static func refused(_ why: String) -> Self { Self(reason: "the kernel refused a page: \(why)") }
}

import LinuxSystem
import PageProtocol
import Synchronization
import Telemetry

/// A guest's memory while its pages arrive: how pages are placed, and how faults on placed pages are answered.
final class ArrivingMemory: Sendable {
    let ranges: [PageRange]
    /// The indices of the ranges, in the order of their addresses.
    private let order: [Int]
    let table: RegionTable
    /// Which pages are wanted, expected, in flight and resident.
    let faults: FaultTable
    /// This process's own mappings of the memory, one per range; nil for a range without one.
    ///
    /// `nonisolated(unsafe)`: written only after every thread that places pages has ended.
    nonisolated(unsafe) private(set) var aliases: [MemoryAlias?]
    /// The number of prefetched pages without evidence that they were used.
    let prefetchedUnused = Atomic<Int>(0)
    /// Notified when the push has brought a page that a fault waits for; nil if no thread has to be notified.
    private let pushedWanted: PushedWanted?
    let urgentService = LatencyRecorder()
    let bulkService = LatencyRecorder()
    /// The waits of the process's threads.
    let stalls = ThreadStalls()
    /// The arrival of pages on the bulk lane.
    let bulk = RecentWork()
    let pagesTotal: Int
    let onEvent: @Sendable (PageFetcher.Event) -> Void

    let userfaultfd: Userfaultfd
    /// Huge pages that a thread places or has placed, and pages of aliases while a thread writes to them.
    let claimed: [PageBitmap]
    /// The page that is copied to place a huge page of zeros; zero memory that is never written.
    let zeros: Mapping
    private let demand = Atomic<Int>(0)
    private let pushed = Atomic<Int>(0)
    private let prefetched = Atomic<Int>(0)
    private let zero = Atomic<Int>(0)
    private let requestedZero = Atomic<Int>(0)
    let duplicate = Atomic<Int>(0)
    private let removed = Atomic<Int>(0)
    private let found = Atomic<Int>(0)
    private let residentCount = Atomic<Int>(0)
    /// Whether LISTEN has come; no page may arrive before it.
    private let isOpen = Atomic<Bool>(false)
    /// Whether the agent is closing, so that no thread may wait in order to place a page.
    private let isClosing = Atomic<Bool>(false)
    /// The time of the latest report that a fault cannot be answered; 0 if there was none.
    let lastTold = Atomic<UInt64>(0)
    /// The pages whose readers are woken again and again.
    let wakes = RepeatedWakes()
    /// The latest want of memory.
    let shortage = ShortageRecord()
    /// Whether a thread that lacks memory for a page waits for it, instead of ending its lane.
    let waitsForMemory: Bool
    /// The reader of events; nil if the process does not report what it does to its memory.
    let events: MemoryEvents?
    /// The log of touched pages; nil if touches are not recorded.
    let touches: TouchLog?
    /// The page table that shows which pages are present; nil if it cannot be read.
    let pageTable: PageTable?
    /// The counts of pages by their place; nil if nobody looks at them.
    let grid: PageGrid?
    /// The bytes that each lane has brought.
    let laneBytes = LaneBytes()

    init(
        userfaultfd: consuming Userfaultfd,
        ranges: [PageRange],
        resident: [PageBitmap],
        aliases: [MemoryAlias?] = [],
        table: RegionTable,
        pushedWanted: PushedWanted? = nil,
        events: MemoryEvents? = nil,
        pageTable: PageTable? = nil,
        touches: TouchLog? = nil,
        waitsForMemory: Bool = false,
        grid: PageGrid? = nil,
        onEvent: @escaping @Sendable (PageFetcher.Event) -> Void
    ) throws(SystemError) {
        self.waitsForMemory = waitsForMemory
        self.grid = grid
        self.pushedWanted = pushedWanted
        self.events = events
        self.pageTable = pageTable
        self.touches = touches
        self.userfaultfd = userfaultfd
        self.ranges = ranges
        order = ranges.indices.sorted { ranges[$0].address < ranges[$1].address }
        faults = try FaultTable(resident: resident)
        let aliases = aliases.isEmpty ? ranges.map { _ in nil } : aliases
        self.aliases = aliases
        self.table = table
        self.onEvent = onEvent
        var claimed: [PageBitmap] = []
        for (range, alias) in zip(ranges, aliases) {
            claimed.append(try PageBitmap(pageCount: range.isHuge || alias != nil ? range.pageCount : 0))
        }
        self.claimed = claimed
        zeros = try Mapping(anonymousBytes: ranges.map(\.pageSize).max() ?? 4096)
        // A copy from memory that is not mapped needs a second huge page for a moment, which the pool may lack.
        try zeros.advise(.populate)
        pagesTotal = ranges.reduce(0) { $0 + $1.pageCount }
        residentCount.store(resident.reduce(0) { $0 + $1.count }, ordering: .relaxed)
    }

    /// The placed or removed pages.
    @inline(__always)
    var resident: [PageBitmap] { faults.resident }

    /// A fault on the page at an address; nil if the address lies in no region.
    @inline(__always)
    func fault(at address: UInt64, thread: UInt32 = 0) -> Fault? {
        // Searches the last region that begins at the address or before it.
        var (low, high) = (0, order.count)
        while low < high {
            let middle = (low + high) / 2
            if ranges[order[middle]].address <= address { low = middle + 1 } else { high = middle }
        }
        guard low > 0 else { return nil }
        let region = order[low - 1]
        let range = ranges[region]
        guard address - range.address < range.byteCount else { return nil }
        return Fault(region: region, page: Int(address - range.address) / range.pageSize, thread: thread)
    }

    /// Records a fault, and answers it if its page was placed before.
    ///
    /// - Returns: what else the fault must cause.
    /// - Throws: the reason why a fault on a page that was placed before cannot be answered.
    @inline(__always)
    func take(_ fault: Fault, now: UInt64) throws(PlacementFailure) -> FaultOutcome {
        stalls.begin(fault, now: now)
        // Pages of an alias are in its file before they are complete.
        if fault.kind == .minor, aliases[fault.region] == nil {
            try answerMinor(fault)
            endStalls(fault.page..<fault.page + 1, region: fault.region)
            return .resident
        }
        let outcome = faults.fault(fault, now: now)
        switch outcome {
        case .resident:
            try answerAgain(fault)
            endStalls(fault.page..<fault.page + 1, region: fault.region)
        case .asked: break
        case .expected, .request: touches?.note(fault.page, region: fault.region, now: now)
        }
        return outcome
    }

    /// The lane on which a run of pages arrived.
    enum Origin {
        /// On the urgent lane.
        case demand
        /// On the bulk lane.
        case push
    }

    /// Places a run that lies in its region.
    ///
    /// - Parameters:
    ///   - run: the pages to place.
    ///   - source: the run's bytes; nil for zeros.
    ///   - origin: the lane on which the run arrived.
    @inline(__always)
    func place(_ run: PageRun, from source: UnsafeRawPointer?, origin: Origin) throws(PlacementFailure) {
        let region = Int(run.region)
        let range = ranges[region]
        if let alias = aliases[region] {
            guard let source else { return try placeZeros(run, in: alias, origin: origin) }
            return try place(run, from: source, in: alias, origin: origin)
        }
        if let events { return try place(run, from: source, origin: origin, besides: events) }
        if range.isHuge { return try placeHuge(run, from: source, origin: origin) }
        let first = Int(run.first)
        let end = first + Int(run.count)
        var page = first
        var step = end - first
        var pauses = 0
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
                // `note` below finds out from our own record which thread placed the page; `wake` lets its reader
                // continue.
                duplicate.add(1, ordering: .relaxed)
                userfaultfd.wake(address, byteCount: range.pageSize)
                note(page..<(page + 1), region: region, isZero: source == nil, origin: origin)
                page += 1
            case .again: try pause()
            case .unmapped where byteCount > range.pageSize:
                // The kernel also reports this for a run that crosses two mappings, so it is believed of a single page
                // only.
                step = 1
            case .unmapped:
                noteUnmapped(page, region: region)
                page += 1
            case .gone: throw .gone
            case .noMemory: try waitForMemory(.noMemory, &pauses)
            case .failed(let errno): throw .refused("\(errno)")
            }
        }
    }

    /// Answers a fault on a page that was placed before, by placing zeros if the page is absent.
    ///
    /// Either the page was placed just now, or the process has dropped it since. A dropped page reads as zeros, as it
    /// would without userfaultfd. With an alias, a page that the file contains is mapped again instead.
    @inline(never)
    func answerAgain(_ fault: Fault) throws(PlacementFailure) {
        let range = ranges[fault.region]
        let address = range.address(ofPage: fault.page)
        if aliases[fault.region] != nil, try answerFromFile(address, byteCount: range.pageSize) { return }
        let placement =
            if range.isHuge {
                userfaultfd.copy(to: address, from: zeros.base, byteCount: range.pageSize)
            } else {
                userfaultfd.zero(address, byteCount: range.pageSize)
            }
        switch placement {
        case .placed: wakes.forget(fault.page, region: fault.region)
        // Without a page table, a huge page that is present cannot be distinguished from an exhausted pool: the kernel
        // reports both as EEXIST. If the pool is exhausted, waking would raise the same fault again at once.
        case .present where range.isHuge && pageTable == nil: throw .noHugePage
        case .present where try !isPlaced(at: address, in: range): throw .noHugePage
        case .present, .unmapped: try wakeAgain(fault)
        case .again: userfaultfd.wake(address, byteCount: range.pageSize)
        case .gone: break  // No thread waits in memory that does not exist.
        case .noMemory: throw range.isHuge ? .noHugePage : .noMemory
        case .failed(let errno): throw .refused("\(errno)")
        }
    }

    /// Answers a fault on a page that the memory's file holds and that is not mapped, by mapping the page.
    ///
    /// Such a page was written before the memory was handed over, or was placed and unmapped. The snapshot's page is not
    /// wanted in either case.
    @inline(never)
    func answerMinor(_ fault: Fault) throws(PlacementFailure) {
        let range = ranges[fault.region]
        let address = range.address(ofPage: fault.page)
        switch userfaultfd.map(address, byteCount: range.pageSize) {
        case .placed: noteFound(fault.page, region: fault.region)
        case .present:
            noteFound(fault.page, region: fault.region)
            try wakeAgain(fault)
        // The process has unmapped the page, or has taken it out of the file: the next fault is another one.
        case .unmapped: try wakeAgain(fault)
        case .failed(let errno) where errno.isMemoryGone: try wakeAgain(fault)
        case .again: userfaultfd.wake(address, byteCount: range.pageSize)
        case .gone: break  // No thread waits in memory that does not exist.
        case .noMemory: throw .noMemory
        case .failed(let errno):
            throw .refused("it is in the memory's file and cannot be mapped (UFFDIO_CONTINUE): \(errno)")
        }
    }

    /// Wakes the readers of a page that needs no answer.
    ///
    /// - Throws: why the readers are not woken now, if they were woken too often: they fault again each time.
    private func wakeAgain(_ fault: Fault) throws(PlacementFailure) {
        let range = ranges[fault.region]
        let address = range.address(ofPage: fault.page)
        guard wakes.note(fault.page, region: fault.region, now: MonotonicClock.now()) else {
            throw .repeated(fault, at: address)
        }
        userfaultfd.wake(address, byteCount: range.pageSize)
    }

    @inline(__always)
    func note(_ pages: Range<Int>, region: Int, isZero: Bool, origin: Origin) {
        let (added, areFaultsInFlight) = faults.arrived(pages, region: region)
        if areFaultsInFlight { settle(pages, region: region, origin: origin) }
        endStalls(pages, region: region)
        guard added > 0 else { return }
        switch (origin, isZero) {
        case (.demand, _):
            let ahead = faults.unawaited(pages, added: added, region: region)
            prefetched.add(ahead, ordering: .relaxed)
            demand.add(added - ahead, ordering: .relaxed)
            if isZero { requestedZero.add(added, ordering: .relaxed) }
            if let grid { noteRequested(pages, region: region, ahead: ahead, in: grid) }
        case (.push, true):
            zero.add(added, ordering: .relaxed)
            grid?.note(pages, region: region, as: .zero)
        case (.push, false):
            pushed.add(added, ordering: .relaxed)
            grid?.note(pages, region: region, as: .pushed)
        }
        noteResident(added)
    }

    /// Counts pages that came on request by their place.
    ///
    /// - Parameters:
    ///   - pages: the pages.
    ///   - region: the region of the pages.
    ///   - ahead: how many of them no fault has waited for.
    ///   - grid: the counts.
    @inline(never)
    private func noteRequested(_ pages: Range<Int>, region: Int, ahead: Int, in grid: PageGrid) {
        guard ahead > 0 else { return grid.note(pages, region: region, as: .demand) }
        var first = pages.lowerBound
        while first < pages.upperBound {
            let isAhead = faults.isExpected(first, region: region)
            var end = first + 1
            while end < pages.upperBound, faults.isExpected(end, region: region) == isAhead { end += 1 }
            grid.note(first..<end, region: region, as: isAhead ? .prefetched : .demand)
            first = end
        }
    }

    /// Marks an unmapped page as never to be placed, and wakes its readers, which find no memory.
    @inline(never)
    func noteUnmapped(_ page: Int, region: Int) {
        noteRemoved(page..<page + 1, region: region)
        userfaultfd.wake(ranges[region].address(ofPage: page), byteCount: ranges[region].pageSize)
    }

    /// Yields, so that the thread that is changing a mapping can finish; reads the event that this thread waits for.
    ///
    /// - Throws: ``PlacementFailure/ended`` if the agent is closing, or why the events cannot be read.
    @inline(never)
    func pause() throws(PlacementFailure) {
        guard !isClosing.load(ordering: .relaxed) else { throw .ended }
        JoinedThread.yield()
        do throws(SystemError) {
            try events?.readAhead(from: self)
        } catch {
            throw .refused("\(error)")
        }
    }

    /// Lets pages arrive: LISTEN has come.
    func open() { isOpen.store(true, ordering: .releasing) }

    /// Stops every later wait for a mapping that is changing.
    func beginToClose() { isClosing.store(true, ordering: .relaxed) }

    /// Checks that LISTEN has come, so that the run may arrive.
    @inline(__always)
    func requireOpen(_ run: PageRun) throws(PagesBeforeListen) {
        guard isOpen.load(ordering: .relaxed) else { throw PagesBeforeListen(run: run) }
    }

    /// Raises every waiting fault again.
    func wakeAll() {
        for range in ranges { userfaultfd.wake(range.address, byteCount: Int(range.byteCount)) }
    }

    /// Marks pages as dropped: those that were missing are never placed.
    func noteRemoved(_ pages: Range<Int>, region: Int) {
        noteUnwanted(pages, region: region, in: removed)
    }

    /// Marks a page that the memory's file holds: it is never placed.
    private func noteFound(_ page: Int, region: Int) {
        noteUnwanted(page..<page + 1, region: region, in: found)
    }

    private func noteUnwanted(_ pages: Range<Int>, region: Int, in count: borrowing Atomic<Int>) {
        let added = faults.removed(pages, region: region)
        endStalls(pages, region: region)
        guard added > 0 else { return }
        count.add(added, ordering: .relaxed)
        noteResident(added)
    }

    @inline(__always)
    private func noteResident(_ added: Int) {
        if residentCount.add(added, ordering: .acquiringAndReleasing).newValue == pagesTotal {
            onEvent(.everyPageResident)
        }
    }

    /// Ends the waiting faults on these pages, and records how long each waited.
    @inline(__always)
    private func settle(_ pages: Range<Int>, region: Int, origin: Origin) {
        let now = MonotonicClock.now()
        let recorder = origin == .demand ? urgentService : bulkService
        for page in pages {
            guard let since = faults.endFaults(on: page, region: region) else { continue }
            recorder.record(nanoseconds: now &- since)
            if origin == .push { pushedWanted?.flag.raise() }
        }
    }

    /// Ends the stalls of threads that wait for these pages, which were placed or removed.
    @inline(__always)
    private func endStalls(_ pages: Range<Int>, region: Int) {
        guard stalls.count > 0 else { return }
        stalls.end(pages, region: region, now: MonotonicClock.now())
    }

    /// Unmaps the aliases, so that the memory of an exited process is freed; no thread may place pages any more.
    func dropAliases() {
        // Threads that fetch their own pages never end, but their memory has no aliases.
        guard hasAliases else { return }
        aliases = ranges.map { _ in nil }
    }

    /// Unregisters complete memory from the userfaultfd.
    ///
    /// - Returns: whether its process need not wait for a reader of events any more. A part of the memory may stay
    ///   registered if much of it was mapped anew; such a part lacks no page.
    @discardableResult
    func close() -> Bool {
        var isClosed = true
        for range in ranges where !userfaultfd.unregisterParts(of: range) { isClosed = false }
        return isClosed || events == nil
    }

    var isComplete: Bool { residentCount.load(ordering: .acquiring) == pagesTotal }

    var progress: PageFetcher.Progress {
        var progress = PageFetcher.Progress()
        progress.pagesTotal = pagesTotal
        progress.pagesResident = residentCount.load(ordering: .relaxed)
        progress.bytesTotal = ranges.reduce(0) { $0 + $1.pageCount * $1.pageSize }
        progress.bytesResident = bytes(ofPages: progress.pagesResident)
        progress.demand = demand.load(ordering: .relaxed)
        progress.pushed = pushed.load(ordering: .relaxed)
        progress.prefetched = prefetched.load(ordering: .relaxed)
        progress.prefetchedUnused = min(progress.prefetched, prefetchedUnused.load(ordering: .relaxed))
        progress.zero = zero.load(ordering: .relaxed)
        progress.requestedZero = requestedZero.load(ordering: .relaxed)
        progress.removed = removed.load(ordering: .relaxed)
        progress.found = found.load(ordering: .relaxed)
        progress.duplicate = duplicate.load(ordering: .relaxed)
        progress.waiting = faults.inFlightCount
        progress.waitingSince = progress.waiting > 0 ? faults.oldest?.since : nil
        return progress
    }

    /// Returns the bytes of the pages that have arrived.
    ///
    /// The pages of each region are counted only if page sizes differ.
    private func bytes(ofPages count: Int) -> Int {
        guard let first = ranges.first else { return 0 }
        if ranges.allSatisfy({ $0.pageSize == first.pageSize }) { return count * first.pageSize }
        return zip(ranges, resident).reduce(0) { $0 + $1.0.pageSize * $1.1.count }
    }
}

/// The flag that is raised when the push brings a page for a thread that fetches its own pages and waits for this one.
final class PushedWanted: Sendable {
    let flag: EventDescriptor

    init() throws(SystemError) { flag = try EventDescriptor() }
}

/// The error of a page that could not be placed, with the reason for people.
struct PlacementFailure: Error, CustomStringConvertible {
    let reason: String
    /// What the kernel lacks; nil for another reason.
    var shortage: PageFetcher.Shortage?
    var description: String { reason }

    static let gone = Self(
        reason: "the guest's memory is gone: its process has ended, or runs another program (execve)"
    )
    static let ended = Self(reason: "the agent is closing and places no more pages")
    static let noMemory = Self(reason: "no memory is left on this host to place a page in", shortage: .memory)
    static let noHugePage = Self(
        reason:
            "no huge page is left on this host to place a page in, or the page was placed before; raise "
            + "vm.nr_hugepages",
        shortage: .hugePages
    )
    static func repeated(_ fault: Fault, at address: UInt64) -> Self {
        let what =
            switch fault.kind {
            case .missing: "the page is present, but the process finds it missing"
            case .minor: "the page is mapped, but the process finds it unmapped"
            case .writeProtected: "the process has write-protected the page (UFFDIO_WRITEPROTECT)"
            }
        return Self(
            reason: "its readers were woken \(RepeatedWakes.most) times within a second and fault again, at address "
                + "0x\(String(address, radix: 16)): \(what)"
        )
    }
    static func lost(_ why: String) -> Self { Self(reason: "memory of the workload is lost: \(why)") }
    static func refused(_ why: String) -> Self { Self(reason: "the kernel refused a page: \(why)") }
}

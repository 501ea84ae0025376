import LinuxSystem
import PageProtocol
import Synchronization
import Telemetry

/// A workload's memory as the source sends it, with the set of pages already sent.
final class SentMemory: Sendable {
    let regions: [SourceRegion]
    /// The mappings of the regions in this process; nil for memory of another process.
    private let mapped: [MemoryRegion?]
    let table: RegionTable
    let sent: [PageBitmap]
    let pagesTotal: Int
    let isFrozen = Atomic<Bool>(false)
    let requests = Atomic<Int>(0)
    let zeroPages = Atomic<Int>(0)
    let bytesSent = Atomic<Int>(0)
    /// Pages sent first because they were requested.
    let requestedPages = Atomic<Int>(0)
    /// Pages that the push has sent first, with their bytes; like all of these counts but ``pagesSent``, pages that are
    /// sent again after a link broke count again.
    let pushedPages = Atomic<Int>(0)
    /// Pages that the push has sent first, as zeros.
    let pushedZeroPages = Atomic<Int>(0)
    /// The bytes of pages that each lane has carried.
    let laneBytes = LaneBytes()
    /// The counts of pages by their place; nil if nobody looks at them.
    let grid: PageGrid?
    let pushLimit: PushLimit
    /// What the push has compressed.
    let compression = CompressionCounts()
    /// The sends of the push.
    let push = RecentWork()
    /// The release of sent memory; nil if memory is kept.
    let release: MemoryRelease?
    /// The size of the largest page that is copied before it is sent, in bytes; 0 if none is.
    private let largestCopy: Int
    /// The buffers of the urgent lanes for pages that are copied and larger than a small page; nil if there are none.
    private let largeBuffers: LargePageBuffers?
    /// The place after the newest request, stored by the threads that answer requests and loaded by any thread.
    private let newest = Atomic<UInt64>(0)
    /// The number of clear bits in `sent`, over all regions.
    private let pagesLeft: Atomic<Int>
    private let completed = Atomic<Bool>(false)

    init(
        regions: [SourceRegion],
        table: RegionTable,
        release: MemoryRelease?,
        grid: PageGrid? = nil
    ) throws(SystemError) {
        self.regions = regions
        self.grid = grid
        mapped = regions.map(\.mapped)
        self.release = release
        largestCopy = regions.reduce(0) { $1.mapped == nil ? max($0, $1.pageSize) : $0 }
        largeBuffers = largestCopy > PageWindow.smallPage ? try LargePageBuffers(byteCount: largestCopy) : nil
        pushLimit = try PushLimit()
        self.table = table
        var sent: [PageBitmap] = []
        for region in regions { sent.append(try PageBitmap(pageCount: region.pageCount)) }
        self.sent = sent
        pagesTotal = regions.reduce(0) { $0 + $1.pageCount }
        pagesLeft = Atomic(pagesTotal)
    }

    var pagesSent: Int { pagesTotal - pagesLeft.load(ordering: .relaxed) }

    /// Bytes of pages that were not sent; regions may have different page sizes.
    var bytesLeft: Int {
        zip(regions, sent).reduce(0) { $0 + ($1.0.pageCount - $1.1.count) * $1.0.pageSize }
    }

    /// The place after the newest request for a single page, on which a fault waits; the first place if there was none.
    ///
    /// The place is a hint: its loads and stores are relaxed.
    @inline(__always)
    var behindNewestRequest: PagePlace {
        let place = newest.load(ordering: .relaxed)
        return PagePlace(region: Int(place >> 40), page: Int(place & (1 << 40 - 1)))
    }

    @inline(__always)
    func noteNewest(_ run: PageRun) {
        var region = Int(run.region)
        var page = Int(run.first) + Int(run.count)
        if page == regions[region].pageCount { (region, page) = ((region + 1) % regions.count, 0) }
        // A region index has at most 12 bits (4096 slices) and a page index at most 34 (2^46 bytes).
        newest.store(UInt64(region) << 40 | UInt64(page), ordering: .relaxed)
    }

    /// Whether a page has not been sent.
    func isUnsent(_ place: PagePlace) -> Bool { !sent[place.region].contains(place.page) }

    /// The first unsent page at or after `place`, wrapping around at the end of memory; nil if every page was sent.
    func firstUnsent(from place: PagePlace) -> PagePlace? {
        var page = place.page
        for step in 0...regions.count {
            let region = (place.region + step) % regions.count
            if let found = sent[region].firstClear(from: page) { return PagePlace(region: region, page: found) }
            page = 0
        }
        return nil
    }

    /// Marks pages as sent.
    ///
    /// - Parameters:
    ///   - pages: the pages.
    ///   - region: the region of the pages.
    ///   - origin: why the pages are sent, or ``PageGrid/Origin/zero`` if the push sends them without their bytes.
    ///   - isZero: whether pages that were requested are sent without their bytes.
    @inline(__always)
    func claim(_ pages: Range<Int>, region: Int, as origin: PageGrid.Origin, isZero: Bool = false) {
        let added = sent[region].insert(run: pages)
        guard added > 0 else { return }
        pagesLeft.subtract(added, ordering: .acquiringAndReleasing)
        if origin == .zero || isZero { zeroPages.add(added, ordering: .relaxed) }
        switch origin {
        case .demand: requestedPages.add(added, ordering: .relaxed)
        case .pushed: pushedPages.add(added, ordering: .relaxed)
        case .zero: pushedZeroPages.add(added, ordering: .relaxed)
        case .prefetched: break
        }
        grid?.note(pages, region: region, as: origin)
    }

    /// Makes the set of sent pages equal to what the destination has received; no lane may be attached.
    func assign(_ received: [[UInt8]]) {
        for (bitmap, bytes) in zip(sent, received) { bitmap.assign(bytes) }
        pagesLeft.store(pagesTotal - sent.reduce(0) { $0 + $1.count }, ordering: .releasing)
        completed.store(false, ordering: .releasing)
        release?.resetPush()
    }

    @inline(__always)
    func completesNow() -> Bool {
        guard pagesLeft.load(ordering: .acquiring) == 0, !completed.load(ordering: .relaxed) else { return false }
        return !completed.exchange(true, ordering: .acquiringAndReleasing)
    }
}

extension SentMemory: RequestedMemory {
    /// The workload is stopped, so its memory does not change while it is sent.
    static var isCopied: Bool { false }

    @inline(__always)
    func requireUnchanged() {}

    @inline(__always)
    func claim(_ pages: Range<Int>, region: Int, isZero: Bool) {
        claim(pages, region: region, as: .demand, isZero: isZero)
    }

    @inline(__always)
    func answering<Failure>(_ body: () throws(Failure) -> Void) throws(Failure) {
        if let release {
            try release.withMemoryKept(body)
        } else {
            try body()
        }
    }

    @inline(__always)
    func admit(_ run: PageRun) throws {
        guard isFrozen.load(ordering: .acquiring) else { throw RequestBeforeSwitchover(run: run) }
    }

    @inline(__always)
    func isSent(_ page: Int, region: Int) -> Bool { sent[region].contains(page) }

    @inline(__always)
    func isReleased(_ page: Int, region: Int) -> Bool {
        release?.isReleased(page, region: region) ?? false
    }

    func makeWindow() -> PageWindow { PageWindow(copying: largestCopy, sharing: largeBuffers) }

    @inline(__always)
    func show(_ pages: Range<Int>, region: Int, in window: inout PageWindow) throws -> ShownPages? {
        try inPlace(pages, region: region) ?? copy(pages, region: region, to: &window)
    }

    @inline(__always)
    func isZero(_ page: Int, region: Int, in shown: ShownPages) -> Bool { shown.isZero(page) }

    @inline(__always)
    func noteAnswer() { requests.add(1, ordering: .relaxed) }

    @inline(__always)
    var isPushing: Bool { push.isUnderWay }

    @inline(__always)
    func noteSent(bytes: Int, lane: Int) {
        bytesSent.add(bytes, ordering: .relaxed)
        laneBytes.add(bytes, kind: .urgent, index: lane)
    }
}

/// Reading pages, in place or through a window.
extension SentMemory {
    /// Unsent pages that are copied at once.
    private static let longestCopy = 64

    /// Makes the window of the push, which has its own buffers: no urgent lane waits for a buffer of the push.
    func makePushWindow() -> PageWindow { PageWindow(copying: largestCopy) }

    /// Shows an unsent page, and pages after it that the push can send too.
    ///
    /// - Parameters:
    ///   - place: the page.
    ///   - end: the end of the pages that this push may send.
    ///   - window: the window of the pushing thread, which is not full.
    /// - Returns: nil if the page cannot be read and need not be, because it was sent meanwhile.
    @inline(__always)
    func showUnsent(from place: PagePlace, upTo end: Int, in window: inout PageWindow) throws -> ShownPages? {
        let (region, page) = (place.region, place.page)
        if let shown = inPlace(page..<end, region: region) { return shown }
        return try copyUnsent(page..<end, region: region, to: &window)
    }

    @inline(__always)
    private func inPlace(_ pages: Range<Int>, region: Int) -> ShownPages? {
        guard let memory = mapped[region] else { return nil }
        return ShownPages(pages, at: memory.page(pages.lowerBound), pageSize: memory.pageSize)
    }

    @inline(never)
    private func copyUnsent(
        _ pages: Range<Int>,
        region: Int,
        to window: inout PageWindow
    ) throws(MemoryLost) -> ShownPages? {
        let page = pages.lowerBound
        if let shown = window.lastCopy(with: page, region: region) { return shown }
        var end = page + 1
        let limit = min(pages.upperBound, page + SentMemory.longestCopy)
        // A page that was sent is not read, since its process may have dropped it since.
        while end < limit, !sent[region].contains(end) { end += 1 }
        return try copy(page..<end, region: region, to: &window)
    }

    @inline(never)
    private func copy(
        _ pages: Range<Int>,
        region: Int,
        to window: inout PageWindow
    ) throws(MemoryLost) -> ShownPages? {
        do throws(SystemError) {
            return try window.copy(pages, of: regions[region], number: region)
        } catch {
            // A page that was sent arrives without a second copy, unless the lanes break. It then counts as unsent.
            guard !sent[region].contains(pages.lowerBound) else { return nil }
            throw MemoryLost(
                reason: "page \(pages.lowerBound) of region \(region) cannot be sent: \(error); at least "
                    + "\(pagesTotal - pagesSent) of \(pagesTotal) pages have not arrived at the destination"
            )
        }
    }
}

/// The error of a page that the destination lacks, and that cannot be read any more.
struct MemoryLost: Error {
    let reason: String
}

/// The error of a request that came while the workload could still change its memory.
struct RequestBeforeSwitchover: Error, CustomStringConvertible {
    let run: PageRun
    var description: String { "the peer asked for a \(run) before the workload was stopped" }
}

/// The place of a page: its region and its index there; the end of a run if it follows one.
struct PagePlace: Hashable {
    var region: Int
    var page: Int
}

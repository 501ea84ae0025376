import LinuxSystem
import PageProtocol
import Synchronization

/// The memory to send, and which of its pages have been sent.
final class SentMemory: Sendable {
    let regions: [MemoryRegion]
    let table: RegionTable
    let sent: [PageBitmap]
    let pagesTotal: Int
    let isFrozen = Atomic<Bool>(false)
    let requests = Atomic<Int>(0)
    let zeroPages = Atomic<Int>(0)
    let bytesSent = Atomic<Int>(0)
    let pushLimit: PushLimit
    /// Nil where memory is kept.
    let release: MemoryRelease?
    /// The place behind the newest request: any thread reads it, the one that answers requests sets it.
    private let newest = Atomic<UInt64>(0)
    /// Bits that are clear in `sent`, in all regions.
    private let pagesLeft: Atomic<Int>
    private let completed = Atomic<Bool>(false)

    init(regions: [MemoryRegion], table: RegionTable, release: MemoryRelease?) throws(SystemError) {
        self.regions = regions
        self.release = release
        pushLimit = try PushLimit()
        self.table = table
        var sent: [PageBitmap] = []
        for region in regions { sent.append(try PageBitmap(pageCount: region.pageCount)) }
        self.sent = sent
        pagesTotal = regions.reduce(0) { $0 + $1.pageCount }
        pagesLeft = Atomic(pagesTotal)
    }

    var pagesSent: Int { pagesTotal - pagesLeft.load(ordering: .relaxed) }

    /// The place behind the newest request for a single page, that of somebody who waits; the first of all before any.
    ///
    /// Advice, which is in no order with anything else.
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
        // A region index has 6 bits (64 regions) and a page index at most 34 (2^46 bytes).
        newest.store(UInt64(region) << 40 | UInt64(page), ordering: .relaxed)
    }

    /// Whether a page has not been sent.
    func isUnsent(_ place: PagePlace) -> Bool { !sent[place.region].contains(place.page) }

    /// The first page at or behind a place that has not been sent, with all pages in a circle; nil if all have been.
    func firstUnsent(from place: PagePlace) -> PagePlace? {
        var page = place.page
        for step in 0...regions.count {
            let region = (place.region + step) % regions.count
            if let found = sent[region].firstClear(from: page) { return PagePlace(region: region, page: found) }
            page = 0
        }
        return nil
    }

    @inline(__always)
    func claim(_ pages: Range<Int>, region: Int, isZero: Bool) {
        let added = sent[region].insert(run: pages)
        if added > 0 { pagesLeft.subtract(added, ordering: .acquiringAndReleasing) }
        if isZero { zeroPages.add(added, ordering: .relaxed) }
    }

    /// From now on, exactly what was received counts as sent. No lane is attached.
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
    /// The workload has stopped, and changes nothing.
    static var isCopied: Bool { false }

    @inline(__always)
    func requireUnchanged() {}

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
    func isReleased(_ page: Int, region: Int) -> Bool {
        release?.isReleased(page, region: region) ?? false
    }

    @inline(__always)
    func isZero(_ page: Int, region: Int) -> Bool {
        let region = regions[region]
        return ZeroScan.isZero(region.page(page), byteCount: region.pageSize)
    }

    @inline(__always)
    func address(of page: Int, region: Int) -> UnsafeMutableRawPointer { regions[region].page(page) }

    @inline(__always)
    func noteAnswer() { requests.add(1, ordering: .relaxed) }

    @inline(__always)
    func noteSent(bytes: Int) { bytesSent.add(bytes, ordering: .relaxed) }
}

/// A peer asked for memory that still changes.
struct RequestBeforeSwitchover: Error, CustomStringConvertible {
    let run: PageRun
    var description: String { "the peer asked for a \(run) before the workload was stopped" }
}

/// A page of a region; after a run, where it ends.
struct PagePlace: Hashable {
    var region: Int
    var page: Int
}

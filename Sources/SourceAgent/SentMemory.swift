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
    /// Bits that are clear in `sent`, in all regions.
    private let pagesLeft: Atomic<Int>
    private let completed = Atomic<Bool>(false)

    init(regions: [MemoryRegion], table: RegionTable) throws(SystemError) {
        self.regions = regions
        self.table = table
        var sent: [PageBitmap] = []
        for region in regions { sent.append(try PageBitmap(pageCount: region.pageCount)) }
        self.sent = sent
        pagesTotal = regions.reduce(0) { $0 + $1.pageCount }
        pagesLeft = Atomic(pagesTotal)
    }

    var pagesSent: Int { pagesTotal - pagesLeft.load(ordering: .relaxed) }

    /// Notes that a run is being sent.
    @inline(__always)
    func claim(_ pages: Range<Int>, region: Int, isZero: Bool) {
        let added = sent[region].insert(run: pages)
        if added > 0 { pagesLeft.subtract(added, ordering: .acquiringAndReleasing) }
        if isZero { zeroPages.add(pages.count, ordering: .relaxed) }
    }

    /// True once: for the caller that finds every page sent first.
    @inline(__always)
    func completesNow() -> Bool {
        guard pagesLeft.load(ordering: .acquiring) == 0, !completed.load(ordering: .relaxed) else { return false }
        return !completed.exchange(true, ordering: .acquiringAndReleasing)
    }
}

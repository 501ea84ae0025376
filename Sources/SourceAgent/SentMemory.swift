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

    /// Notes that a run is being sent.
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

    /// True once: for the caller that finds every page sent first.
    @inline(__always)
    func completesNow() -> Bool {
        guard pagesLeft.load(ordering: .acquiring) == 0, !completed.load(ordering: .relaxed) else { return false }
        return !completed.exchange(true, ordering: .acquiringAndReleasing)
    }
}

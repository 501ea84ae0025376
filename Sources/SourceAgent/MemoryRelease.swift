import LinuxSystem
import Synchronization

/// Gives memory that was pushed back to the kernel, once the workload runs elsewhere.
///
/// Only the thread that pushes gives back, between two sends: then every page that counts as sent has left, whoever sent
/// it. A page that was given back is at the destination or on its way there: a request for it that comes late is not
/// answered, since its memory reads as zeros.
final class MemoryRelease: Sendable {
    private let regions: [MemoryRegion]
    private let released: [PageBitmap]
    // Sequentially consistent, so that of beginning and the end of a push the later one sees the other.
    private let isOn = Atomic<Bool>(false)
    private let isPushed = Atomic<Bool>(false)
    /// Held while pages are given back, and while requests are answered: no page goes while it is being sent.
    private let access = Mutex<Void>(())
    private let onFailure: @Sendable (_ reason: String) -> Void

    init(_ regions: [MemoryRegion], _ onFailure: @escaping @Sendable (_ reason: String) -> Void) throws(SystemError) {
        self.regions = regions
        self.onFailure = onFailure
        var released: [PageBitmap] = []
        for region in regions { released.append(try PageBitmap(pageCount: region.pageCount)) }
        self.released = released
    }

    /// From now on memory is given back.
    func begin() {
        isOn.store(true, ordering: .sequentiallyConsistent)
        if isPushed.load(ordering: .sequentiallyConsistent) { releaseAll() }
    }

    /// The workload may run here again: nothing is given back any more.
    func end() {
        isOn.store(false, ordering: .sequentiallyConsistent)
        // Whoever is just giving back has ended.
        access.withLock { _ in }
    }

    /// Answers requests while nothing is given back.
    func withMemoryKept<Failure>(_ body: () throws(Failure) -> Void) throws(Failure) {
        try access.withLock { (_) throws(Failure) in try body() }
    }

    /// Whether a page was given back. Asked while memory is kept.
    @inline(__always)
    func isReleased(_ page: Int, region: Int) -> Bool { released[region].contains(page) }

    /// Gives pages back that have been pushed. On the pushing thread.
    func release(_ pages: Range<Int>, region: Int) {
        guard isOn.load(ordering: .sequentiallyConsistent) else { return }
        access.withLock { _ in
            guard isOn.load(ordering: .sequentiallyConsistent) else { return }
            do throws(SystemError) {
                _ = released[region].insert(run: pages)
                try regions[region].discard(pages)
            } catch {
                isOn.store(false, ordering: .relaxed)
                onFailure("\(error)")
            }
        }
    }

    /// The push has ended: every page has been sent, those too that it left to requests.
    func endPush() {
        isPushed.store(true, ordering: .sequentiallyConsistent)
        releaseAll()
    }

    private func releaseAll() {
        for (index, region) in regions.enumerated() { release(0..<region.pageCount, region: index) }
    }

    /// The push is to begin anew: pages may have to be sent again.
    func resetPush() {
        isPushed.store(false, ordering: .sequentiallyConsistent)
    }

    /// How many pages have been given back and are not among those that were received: a bit a page for each region.
    func pagesLost(receiving received: [[UInt8]]) -> Int {
        var lost = 0
        for (released, received) in zip(released, received) {
            let bytes = released.bytes(of: 0..<released.pageCount)
            for (gone, arrived) in zip(bytes, received) { lost += (gone & ~arrived).nonzeroBitCount }
        }
        return lost
    }
}

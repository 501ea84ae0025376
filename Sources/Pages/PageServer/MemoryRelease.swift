import LinuxSystem
import Synchronization

/// Releases pushed memory to the kernel while the workload runs on the destination.
///
/// After each send, a pushing thread releases the pages of that send. When all lanes have ended, the rest is released:
/// every page that counts as sent has then left. A released page is at the destination or on its way there. A late request for it is not answered, since its memory now reads as zeros.
final class MemoryRelease: Sendable {
    private let regions: [SourceRegion]
    private let released: [PageBitmap]
    // `begin()` and `endPush()` each store one flag and then load the other. Sequential consistency makes at least one
    // of them see the other's store, so that the last pages are released.
    private let isOn = Atomic<Bool>(false)
    private let isPushed = Atomic<Bool>(false)
    /// Held while pages are released and while requests are answered, so that no page is released while it is being
    /// sent.
    private let access = Mutex<Void>(())
    private let onFailure: @Sendable (_ reason: String) -> Void

    init(_ regions: [SourceRegion], _ onFailure: @escaping @Sendable (_ reason: String) -> Void) throws(SystemError) {
        self.regions = regions
        self.onFailure = onFailure
        var released: [PageBitmap] = []
        for region in regions { released.append(try PageBitmap(pageCount: region.pageCount)) }
        self.released = released
    }

    /// Starts to release memory.
    func begin() {
        isOn.store(true, ordering: .sequentiallyConsistent)
        if isPushed.load(ordering: .sequentiallyConsistent) { releaseAll() }
    }

    /// Stops releasing memory, since the workload may run here again; a release that is under way has ended on return.
    func end() {
        isOn.store(false, ordering: .sequentiallyConsistent)
        // A release that is under way holds the lock.
        access.withLock { _ in }
    }

    /// Runs `body`, which answers requests, while no memory is released.
    func withMemoryKept<Failure>(_ body: () throws(Failure) -> Void) throws(Failure) {
        try access.withLock { (_) throws(Failure) in try body() }
    }

    /// Whether a page was released; call this only inside ``withMemoryKept(_:)``.
    @inline(__always)
    func isReleased(_ page: Int, region: Int) -> Bool { released[region].contains(page) }

    /// Releases pushed pages; called by the thread that has pushed them, or by any thread once the push has ended.
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

    /// Ends the push: every page was sent, including the pages that were sent for requests, and can be released.
    func endPush() {
        isPushed.store(true, ordering: .sequentiallyConsistent)
        releaseAll()
    }

    private func releaseAll() {
        for (index, region) in regions.enumerated() { release(0..<region.pageCount, region: index) }
    }

    /// Prepares for another push, since pages may have to be sent again.
    func resetPush() {
        isPushed.store(false, ordering: .sequentiallyConsistent)
    }

    /// The number of pages that were released and that the destination does not have.
    ///
    /// - Parameter received: for each region, one bit per page that the destination has.
    func pagesLost(receiving received: [[UInt8]]) -> Int {
        var lost = 0
        for (released, received) in zip(released, received) {
            let bytes = released.bytes(of: 0..<released.pageCount)
            for (gone, arrived) in zip(bytes, received) { lost += (gone & ~arrived).nonzeroBitCount }
        }
        return lost
    }
}

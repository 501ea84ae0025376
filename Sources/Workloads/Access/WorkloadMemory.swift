import Guest
import LinuxSystem
import Telemetry

/// All pages of a workload under one numbering, and what is expected of each.
///
/// `@unchecked Sendable`: the pointers never change. A page and its ledger entry are touched by the thread that owns
/// the page while the workload runs, and by whoever stopped it after that.
final class WorkloadMemory: @unchecked Sendable {
    /// The regions, in order.
    let regions: [GuestRegion]
    /// Pages of all regions together.
    let pageCount: Int
    /// How many threads share the pages: page i belongs to thread i modulo this.
    let threadCount: Int
    /// How pages look.
    let format: PageFormat
    /// Each page's version; 0 for a page that was never written, ``PageFormat/unknownVersion`` for one not yet looked at.
    let ledger: UnsafeMutablePointer<UInt32>
    /// Pages that were found wrong while the workload ran.
    let wrong: PageBitmap
    /// How long all threads have waited at once for absent pages.
    let blocked: BlockedTime
    private let slots: UnsafeMutablePointer<PageAccess.Slot>

    /// Lays a numbering over regions of the shapes that the configuration makes.
    init(_ configuration: WorkloadConfiguration, regions: [GuestRegion]) throws(SystemError) {
        self.regions = regions
        pageCount = configuration.pageCount
        threadCount = configuration.threads
        format = PageFormat(pageSize: configuration.pageSize, seed: configuration.seed)
        wrong = try PageBitmap(pageCount: pageCount)
        blocked = BlockedTime(threads: threadCount)
        ledger = .allocate(capacity: pageCount)
        ledger.initialize(repeating: 0, count: pageCount)
        slots = .allocate(capacity: regions.count)
        for (index, region) in regions.enumerated() {
            let slot = PageAccess.Slot(
                base: region.memory.base,
                resident: region.resident.map(Unmanaged.passUnretained)
            )
            (slots + index).initialize(to: slot)
        }
    }

    deinit {
        ledger.deallocate()
        slots.deallocate()
    }

    /// A view for a loop that keeps this object and the recorder alive for as long.
    ///
    /// - Parameter stalls: where waiting for absent pages is counted; nil to count nothing.
    func access(recordingIn stalls: LatencyRecorder?) -> PageAccess {
        PageAccess(
            slots: slots,
            lastSlot: regions.count - 1,
            pagesPerSlot: regions[0].memory.pageCount,
            format: format,
            ledger: ledger,
            wrong: Unmanaged.passUnretained(wrong),
            stalls: stalls.map(Unmanaged.passUnretained),
            blocked: Unmanaged.passUnretained(blocked)
        )
    }

    /// The ledger knows nothing of any page.
    func forgetVersions() {
        ledger.update(repeating: PageFormat.unknownVersion, count: pageCount)
    }

    /// How many pages a thread owns.
    func pageCount(ofThread thread: Int) -> Int {
        (pageCount - thread + threadCount - 1) / threadCount
    }
}

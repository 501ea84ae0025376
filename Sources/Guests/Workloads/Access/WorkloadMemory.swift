import Guest
import LinuxSystem
import Telemetry

/// All pages of a workload under one numbering, with the version that each should have.
///
/// `@unchecked Sendable`: the pointers never change. While the workload runs, only the thread that owns a page touches
/// the page and its ledger entry. While it does not run, only the caller that stopped it does.
final class WorkloadMemory: @unchecked Sendable {
    /// The regions, in order.
    let regions: [GuestRegion]
    /// The number of pages in all regions together.
    let pageCount: Int
    /// The number of threads that share the pages: page i belongs to thread i modulo this number.
    let threadCount: Int
    /// The layout of each page.
    let format: PageFormat
    /// Each page's version.
    ///
    /// 0 for a page that was never written, ``PageFormat/unknownVersion`` for a page whose version is not known yet.
    let ledger: UnsafeMutablePointer<UInt32>
    /// The pages that were found wrong while the workload ran.
    let wrong: PageBitmap
    /// The time in which all threads waited for absent pages at once.
    let blocked: BlockedTime
    private let slots: UnsafeMutablePointer<PageAccess.Slot>

    /// Numbers the pages of regions that have the shapes in the configuration.
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

    /// Makes the pointers for a loop, which must keep this object and the recorder alive meanwhile.
    ///
    /// - Parameter stalls: the recorder of waits for absent pages; nil to record none.
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

    /// Marks the version of every page as unknown.
    func forgetVersions() {
        ledger.update(repeating: PageFormat.unknownVersion, count: pageCount)
    }

    /// The number of pages that belong to a thread.
    func pageCount(ofThread thread: Int) -> Int {
        (pageCount - thread + threadCount - 1) / threadCount
    }
}

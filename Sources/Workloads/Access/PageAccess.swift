import LinuxSystem
import Synchronization
import Telemetry

/// The pages of a workload as its loops see them: plain pointers, no reference counting.
///
/// The owner of the ``WorkloadMemory`` keeps everything in here alive.
struct PageAccess {
    /// One region.
    struct Slot {
        let base: UnsafeMutableRawPointer
        let resident: Unmanaged<PageBitmap>?
    }

    let slots: UnsafeMutablePointer<Slot>
    let lastSlot: Int
    let pagesPerSlot: Int
    let format: PageFormat
    let ledger: UnsafeMutablePointer<UInt32>
    let wrong: Unmanaged<PageBitmap>
    let stalls: Unmanaged<LatencyRecorder>?
    let blocked: Unmanaged<BlockedTime>

    /// Where a page is, once it is there: an absent page is waited for here, and the wait is counted.
    @inline(__always)
    func arrive(at page: Int) -> UnsafeMutableRawPointer {
        var slot = slots
        var local = page
        if lastSlot > 0 {
            let index = min(page / pagesPerSlot, lastSlot)
            slot += index
            local = page &- index &* pagesPerSlot
        }
        let address = slot.pointee.base + local &* format.pageSize
        if let resident = slot.pointee.resident, let stalls,
            !resident._withUnsafeGuaranteedRef({ $0.contains(local) })
        {
            PageAccess.wait(for: address, stalls, blocked)
        }
        return address
    }

    @inline(never)
    private static func wait(
        for address: UnsafeMutableRawPointer,
        _ stalls: Unmanaged<LatencyRecorder>,
        _ blocked: Unmanaged<BlockedTime>
    ) {
        // Its bit is set after the page is in place, a run of pages at once: whether it was absent the kernel knows.
        guard !MemoryRegion.isPresent(address) else { return }
        let begin = MonotonicClock.now()
        blocked._withUnsafeGuaranteedRef { $0.begin(at: begin) }
        // An atomic load is neither left out nor moved across the clock.
        _ = address.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .relaxed)
        let end = MonotonicClock.now()
        blocked._withUnsafeGuaranteedRef { $0.end(at: end) }
        stalls._withUnsafeGuaranteedRef { $0.record(nanoseconds: end - begin) }
    }

    /// Where a page is, if it holds what the ledger expects; otherwise it is noted as wrong.
    @inline(__always)
    func checked(_ page: Int) -> UnsafeMutableRawPointer? {
        let address = arrive(at: page)
        guard holds(page, address) else {
            note(page)
            return nil
        }
        return address
    }

    /// Whether a page holds what the ledger expects.
    @inline(__always)
    func holds(_ page: Int, _ address: UnsafeRawPointer) -> Bool {
        format.holds(address, index: page, version: ledger[page]) || learn(page, address)
    }

    /// Takes the version of a page of which the ledger knows nothing from the page itself, if that is whole.
    @inline(never)
    private func learn(_ page: Int, _ address: UnsafeRawPointer) -> Bool {
        guard ledger[page] == PageFormat.unknownVersion, let version = format.claimedVersion(of: address),
            version != PageFormat.unknownVersion, format.holds(address, index: page, version: version)
        else { return false }
        ledger[page] = version
        return true
    }

    /// Notes a page as wrong.
    @inline(never)
    func note(_ page: Int) {
        wrong._withUnsafeGuaranteedRef { _ = $0.insert(page) }
    }

    /// One operation on a page: checks it, and writes its next version when asked to.
    ///
    /// A page that was never written stays so, for zero pages to exist; a page that is wrong stays wrong, for every
    /// later check to find it.
    ///
    /// - Returns: the page's next word, or nil when the page is wrong.
    @inline(__always)
    func operate(on page: Int, write: Bool) -> UInt64? {
        guard let address = checked(page) else { return nil }
        let next = format.next(address)
        if write && ledger[page] != 0 {
            format.fill(address, index: page, version: nextVersion(of: page), next: next)
        }
        return next
    }

    /// Counts a page's version up in the ledger. 0 means never written, and the last one unknown, so both are left out.
    @inline(__always)
    func nextVersion(of page: Int) -> UInt32 {
        let version = ledger[page] >= PageFormat.unknownVersion &- 1 ? 1 : ledger[page] &+ 1
        ledger[page] = version
        return version
    }
}

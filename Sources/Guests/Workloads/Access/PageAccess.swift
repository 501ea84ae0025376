import LinuxSystem
import Synchronization
import Telemetry

/// A workload's pages as plain pointers, so that its loops do no reference counting.
///
/// The owner of the ``WorkloadMemory`` must keep the memory alive for as long as the pointers are used.
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

    /// The address of a page, after a wait for the page if it is absent; the wait is recorded as a stall.
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
        // The bit of a placed page is set late, with the other bits of its run. Only the kernel knows whether the page
        // is absent.
        guard !MemoryRegion.isPresent(address) else { return }
        let begin = MonotonicClock.now()
        blocked._withUnsafeGuaranteedRef { $0.begin(at: begin) }
        // The compiler neither omits an atomic load nor moves it across the readings of the clock.
        _ = address.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .relaxed)
        let end = MonotonicClock.now()
        blocked._withUnsafeGuaranteedRef { $0.end(at: end) }
        stalls._withUnsafeGuaranteedRef { $0.record(nanoseconds: end - begin) }
    }

    /// The address of a page that holds what the ledger expects; nil for any other page, which is noted as wrong.
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

    /// Enters the version that a page itself claims into the ledger, if the ledger has none and the page is whole.
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

    /// Does one operation on a page: checks it and, if `write` is true, writes its next version.
    ///
    /// A page that was never written is not written, so that zero pages remain. A wrong page is not written either, so
    /// that every later check finds it.
    ///
    /// - Returns: the page's next word; nil if the page is wrong.
    @inline(__always)
    func operate(on page: Int, write: Bool) -> UInt64? {
        guard let address = checked(page) else { return nil }
        let next = format.next(address)
        if write && ledger[page] != 0 {
            format.fill(address, index: page, version: nextVersion(of: page), next: next)
        }
        return next
    }

    /// Increments a page's version in the ledger.
    ///
    /// Skips 0, which means never written, and ``PageFormat/unknownVersion``.
    @inline(__always)
    func nextVersion(of page: Int) -> UInt32 {
        let version = ledger[page] >= PageFormat.unknownVersion &- 1 ? 1 : ledger[page] &+ 1
        ledger[page] = version
        return version
    }
}

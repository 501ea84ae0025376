import Synchronization

/// The read times of faults whose pages have not been placed yet, in a table of fixed size.
///
/// Any thread may begin and end a fault; no call locks or allocates. A fault that finds no free slot is served all the
/// same, but its time is not recorded.
///
/// `@unchecked Sendable`: the slots are never moved, and their fields are atomic.
final class InFlightFaults: @unchecked Sendable {
    private struct Slot: ~Copyable {
        /// Region and page, plus one; 0 if the slot is free.
        let key = Atomic<UInt64>(0)
        let since = Atomic<UInt64>(0)
    }

    private static let slotCount = 1 << 12
    private static let probes = 8
    /// The key of a slot that is being filled; no page has this key.
    private static let beginning = UInt64.max
    private let slots: UnsafeMutablePointer<Slot>
    private let used = Atomic<Int>(0)

    init() {
        slots = .allocate(capacity: InFlightFaults.slotCount)
        for index in 0..<InFlightFaults.slotCount { (slots + index).initialize(to: Slot()) }
    }

    deinit {
        slots.deinitialize(count: InFlightFaults.slotCount)
        slots.deallocate()
    }

    /// The number of faults in the table.
    @inline(__always)
    var count: Int { used.load(ordering: .acquiring) }

    @inline(__always)
    private func key(_ region: Int, _ page: Int) -> UInt64 {
        // A region index has at most 12 bits (4096 slices) and a page index at most 34 (2^46 bytes).
        UInt64(region) << 40 | UInt64(page) + 1
    }

    @inline(__always)
    private func slot(_ key: UInt64, _ probe: Int) -> UnsafeMutablePointer<Slot> {
        let hash = (key &* 0x9E37_79B9_7F4A_7C15) >> 52
        return slots + (Int(hash) + probe) & (InFlightFaults.slotCount - 1)
    }

    /// Records that a fault was read at `now`, in nanoseconds of ``MonotonicClock``.
    ///
    /// Another thread is sure to find the fault only after the caller has passed a sequentially consistent fence, as
    /// ``FaultTable`` does. Two threads may begin the same page before it ends; each entry is ended.
    @inline(__always)
    func begin(region: Int, page: Int, now: UInt64) {
        let key = key(region, page)
        for probe in 0..<InFlightFaults.probes {
            let slot = slot(key, probe)
            guard slot.pointee.key.load(ordering: .relaxed) == 0 else { continue }
            // Several threads may find the slot free: one of them takes it.
            let taken = slot.pointee.key.compareExchange(
                expected: 0,
                desired: InFlightFaults.beginning,
                ordering: .acquiring
            )
            guard taken.exchanged else { continue }
            slot.pointee.since.store(now, ordering: .relaxed)
            used.add(1, ordering: .relaxed)
            // The release store publishes `since` to a thread that loads the key.
            slot.pointee.key.store(key, ordering: .releasing)
            return
        }
    }

    /// The page of the oldest fault and the time it was read; nil if there is none.
    ///
    /// For reports only: a change during the search may be missed.
    var oldest: (region: Int, page: Int, since: UInt64)? {
        var oldest: (key: UInt64, since: UInt64)?
        for index in 0..<InFlightFaults.slotCount {
            let key = slots[index].key.load(ordering: .acquiring)
            guard key != 0, key != InFlightFaults.beginning else { continue }
            let since = slots[index].since.load(ordering: .relaxed)
            if since < oldest?.since ?? .max { oldest = (key, since) }
        }
        return oldest.map { (Int(($0.key - 1) >> 40), Int(($0.key - 1) & (1 << 40 - 1)), $0.since) }
    }

    /// Removes a page's faults from the table.
    ///
    /// - Returns: the time at which one of them was read; nil if the table has none.
    @inline(__always)
    func end(region: Int, page: Int) -> UInt64? {
        let key = key(region, page)
        var found: UInt64?
        for probe in 0..<InFlightFaults.probes {
            let slot = slot(key, probe)
            guard slot.pointee.key.load(ordering: .acquiring) == key else { continue }
            let since = slot.pointee.since.load(ordering: .relaxed)
            // Two threads may place the same page: one of them takes the time.
            let taken = slot.pointee.key.compareExchange(expected: key, desired: 0, ordering: .acquiringAndReleasing)
            guard taken.exchanged else { continue }
            used.subtract(1, ordering: .relaxed)
            found = since
        }
        return found
    }
}

import Synchronization

/// When the faults that wait for a page were read. Any thread begins and ends; no lock, no allocation.
///
/// A fault whose place in the table is taken is served all the same; only its time is not known.
///
/// `@unchecked Sendable`: the slots are never moved and only touched atomically.
final class InFlightFaults: @unchecked Sendable {
    private struct Slot: ~Copyable {
        /// Region and page plus one; 0 when the slot is free.
        let key = Atomic<UInt64>(0)
        let since = Atomic<UInt64>(0)
    }

    private static let slotCount = 1 << 12
    private static let probes = 8
    /// The key of a place that is being taken; no page's.
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

    /// Faults whose pages have not been placed.
    @inline(__always)
    var count: Int { used.load(ordering: .acquiring) }

    @inline(__always)
    private func key(_ region: Int, _ page: Int) -> UInt64 {
        // A region index has 6 bits (64 regions) and a page index at most 34 (2^46 bytes).
        UInt64(region) << 40 | UInt64(page) + 1
    }

    @inline(__always)
    private func slot(_ key: UInt64, _ probe: Int) -> UnsafeMutablePointer<Slot> {
        let hash = (key &* 0x9E37_79B9_7F4A_7C15) >> 52
        return slots + (Int(hash) + probe) & (InFlightFaults.slotCount - 1)
    }

    /// Notes that a fault was read at `now`. Nobody begins the same page before it was ended.
    ///
    /// Whoever sets a page's resident bit, passes ``fence()`` and calls ``end(region:page:)`` finds the fault, or the
    /// caller of this, who looks at the bit afterwards, finds that set: one of the two settles it.
    @inline(__always)
    func begin(region: Int, page: Int, now: UInt64) {
        let key = key(region, page)
        for probe in 0..<InFlightFaults.probes {
            let slot = slot(key, probe)
            guard slot.pointee.key.load(ordering: .relaxed) == 0 else { continue }
            // Several threads begin: one of them takes the place.
            let taken = slot.pointee.key.compareExchange(
                expected: 0,
                desired: InFlightFaults.beginning,
                ordering: .acquiring
            )
            guard taken.exchanged else { continue }
            slot.pointee.since.store(now, ordering: .relaxed)
            used.add(1, ordering: .relaxed)
            // Releases `since` to whoever finds the key.
            slot.pointee.key.store(key, ordering: .releasing)
            InFlightFaults.fence()
            return
        }
    }

    /// Keeps a store before it from being seen after a load behind it.
    @inline(__always)
    static func fence() {
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }

    /// The page of the fault that was read first, and when; nil if there is none. For people: what changes meanwhile may be missed.
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

    /// Takes a fault out of the table.
    ///
    /// - Returns: when it was read, or nil if it is not in the table.
    @inline(__always)
    func end(region: Int, page: Int) -> UInt64? {
        let key = key(region, page)
        for probe in 0..<InFlightFaults.probes {
            let slot = slot(key, probe)
            guard slot.pointee.key.load(ordering: .acquiring) == key else { continue }
            let since = slot.pointee.since.load(ordering: .relaxed)
            // Two threads may place the same page: one of them takes the time.
            let taken = slot.pointee.key.compareExchange(expected: key, desired: 0, ordering: .acquiringAndReleasing)
            guard taken.exchanged else { return nil }
            used.subtract(1, ordering: .relaxed)
            return since
        }
        return nil
    }
}

import LinuxSystem
import Synchronization
package import Telemetry

/// How long each thread of the memory's process has waited for pages, by the thread ids in its faults.
///
/// A stall is counted from the reading of a thread's fault until its page is placed. What the thread waits before and
/// after that is not seen here.
///
/// Any thread may call any method; no method locks, waits or allocates, except those for reports.
///
/// `@unchecked Sendable`: the slots never move, and their fields are atomic.
final class ThreadStalls: @unchecked Sendable {
    /// A thread, which waits for one page at most.
    private struct Slot: ~Copyable {
        /// The thread's id; 0 if the slot is free.
        let thread = Atomic<UInt32>(0)
        /// Region and page for which the thread waits, plus one; 0 if it waits for none.
        let key = Atomic<UInt64>(0)
        /// When the fault was read.
        let since = Atomic<UInt64>(0)
        let count = Atomic<UInt64>(0)
        let nanoseconds = Atomic<UInt64>(0)
    }

    /// The most threads that are told apart.
    static let capacity = 256

    private let slots: UnsafeMutablePointer<Slot>
    private let waiting = Atomic<Int>(0)
    private let isCounting = Atomic<Bool>(false)
    /// All stalls that have ended.
    let recorder = LatencyRecorder()

    init() {
        slots = .allocate(capacity: ThreadStalls.capacity)
        for index in 0..<ThreadStalls.capacity { (slots + index).initialize(to: Slot()) }
    }

    deinit {
        slots.deinitialize(count: ThreadStalls.capacity)
        slots.deallocate()
    }

    /// Counts the faults that are read from now on.
    func begin() { isCounting.store(true, ordering: .relaxed) }

    /// The number of threads that wait.
    @inline(__always)
    var count: Int { waiting.load(ordering: .acquiring) }

    /// Records that a thread waits for a page since `now`, in nanoseconds of `MonotonicClock`.
    ///
    /// The caller must look afterwards whether the page has arrived, and end the stall if so. A fault that is raised
    /// again counts from its first time.
    @inline(__always)
    func begin(_ fault: Fault, now: UInt64) {
        // A userfaultfd without THREAD_ID gives thread 0.
        guard fault.thread != 0, isCounting.load(ordering: .relaxed), let slot = slot(of: fault.thread) else { return }
        let key = ThreadStalls.key(fault.region, fault.page)
        let earlier = slot.pointee.key.load(ordering: .acquiring)
        guard earlier != key else { return }
        // The thread was woken, and faulted again before its stall was ended.
        if earlier != 0 { end(slot, earlier, now: now) }
        slot.pointee.since.store(now, ordering: .relaxed)
        if slot.pointee.key.compareExchange(expected: 0, desired: key, ordering: .releasing).exchanged {
            waiting.add(1, ordering: .relaxed)
        }
        // Pairs with the fence between the arrival of a page and the look at `count`.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }

    /// Ends the stalls of the threads that wait for one of these pages, which have arrived.
    @inline(__always)
    func end(_ pages: Range<Int>, region: Int, now: UInt64) {
        let keys = ThreadStalls.key(region, pages.lowerBound)..<ThreadStalls.key(region, pages.upperBound)
        for index in 0..<ThreadStalls.capacity {
            let slot = slots + index
            guard slot.pointee.thread.load(ordering: .acquiring) != 0 else { return }
            let key = slot.pointee.key.load(ordering: .acquiring)
            if keys.contains(key) { end(slot, key, now: now) }
        }
    }

    @inline(__always)
    private func end(_ slot: UnsafeMutablePointer<Slot>, _ key: UInt64, now: UInt64) {
        let since = slot.pointee.since.load(ordering: .relaxed)
        // Two threads may place the same page: one of them takes the time.
        guard slot.pointee.key.compareExchange(expected: key, desired: 0, ordering: .acquiringAndReleasing).exchanged
        else { return }
        waiting.subtract(1, ordering: .relaxed)
        let nanoseconds = now > since ? now - since : 0
        recorder.record(nanoseconds: nanoseconds)
        slot.pointee.count.add(1, ordering: .relaxed)
        slot.pointee.nanoseconds.add(nanoseconds, ordering: .relaxed)
    }

    /// The slot of a thread; nil if the thread is not told apart, because there are too many others.
    @inline(__always)
    private func slot(of thread: UInt32) -> UnsafeMutablePointer<Slot>? {
        for index in 0..<ThreadStalls.capacity {
            let slot = slots + index
            var found = slot.pointee.thread.load(ordering: .acquiring)
            if found == 0 {
                let taken = slot.pointee.thread.compareExchange(
                    expected: 0,
                    desired: thread,
                    ordering: .acquiringAndReleasing
                )
                found = taken.exchanged ? thread : taken.original
            }
            if found == thread { return slot }
        }
        return nil
    }

    @inline(__always)
    private static func key(_ region: Int, _ page: Int) -> UInt64 {
        // A region index has at most 12 bits (4096 slices) and a page index at most 34 (2^46 bytes).
        UInt64(region) << 40 | UInt64(page) + 1
    }

    /// The threads that have waited, in the order of their first stalls.
    var threads: [PageFetcher.ThreadStall] {
        var threads: [PageFetcher.ThreadStall] = []
        for index in 0..<ThreadStalls.capacity {
            let slot = slots + index
            let thread = slot.pointee.thread.load(ordering: .acquiring)
            guard thread != 0 else { break }
            let key = slot.pointee.key.load(ordering: .acquiring)
            let since = slot.pointee.since.load(ordering: .relaxed)
            threads.append(
                PageFetcher.ThreadStall(
                    thread: thread,
                    count: slot.pointee.count.load(ordering: .relaxed),
                    nanoseconds: slot.pointee.nanoseconds.load(ordering: .relaxed),
                    open: key == 0 ? nil : (Int((key - 1) >> 40), Int((key - 1) & (1 << 40 - 1)), since)
                )
            )
        }
        return threads
    }
}

extension PageFetcher {
    /// The stalls of one thread of the memory's process.
    package struct ThreadStall: Sendable {
        /// The thread's id, as its own process sees it.
        package let thread: UInt32
        /// The stalls that have ended.
        package let count: UInt64
        /// The sum of the stalls that have ended, in nanoseconds, each from the reading of the fault to the placement.
        package let nanoseconds: UInt64
        /// The page for which the thread waits, and since when, in nanoseconds of `MonotonicClock`; nil if it does not.
        package let open: (region: Int, page: Int, since: UInt64)?
    }

    /// Counts the stalls of the process's threads from now on.
    package func countStalls() { memory.stalls.begin() }

    /// The threads that have waited since ``countStalls()``; empty if the userfaultfd lacks the feature THREAD_ID.
    package var threadStalls: [ThreadStall] { memory.stalls.threads }

    /// The stalls of these threads that have ended, each from the reading of the fault to the placement.
    package var stalls: LatencyRecorder { memory.stalls.recorder }
}

import LinuxSystem
import Synchronization

extension PageFetcher {
    /// What the kernel lacks to place a page.
    package enum Shortage: Hashable, Sendable {
        case memory
        case hugePages
    }
}

/// The latest want of memory, which lasts for as long as it is met again and again.
///
/// Any thread may call any method. The times are hints: two threads that note a shortage at once may record either time.
final class ShortageRecord: Sendable {
    /// Nanoseconds after which a shortage is worth a report.
    private static let patience: UInt64 = 200_000_000
    /// Nanoseconds without a want of memory after which a shortage is over; more than the longest pause between two
    /// attempts to place a page.
    private static let quiet: UInt64 = 2_000_000_000

    private let isHuge = Atomic<Bool>(false)
    /// When the shortage began, and when it was met last, in nanoseconds of `MonotonicClock`; 0 before the first.
    private let first = Atomic<UInt64>(0)
    private let last = Atomic<UInt64>(0)
    /// The threads that wait for memory.
    private let waiting = Atomic<Int>(0)

    /// Notes that the kernel lacks memory now.
    func note(_ shortage: PageFetcher.Shortage) {
        let now = MonotonicClock.now()
        isHuge.store(shortage == .hugePages, ordering: .relaxed)
        let before = last.exchange(now, ordering: .relaxed)
        // While a thread waits, the shortage has not ended.
        guard waiting.load(ordering: .relaxed) == 0 else { return }
        if before == 0 || now > before + ShortageRecord.quiet { first.store(now, ordering: .relaxed) }
    }

    /// Notes that the kernel lacks memory while a thread waits.
    func note(
        _ shortage: PageFetcher.Shortage,
        while wait: () throws(PlacementFailure) -> Void
    ) throws(PlacementFailure) {
        note(shortage)
        waiting.add(1, ordering: .relaxed)
        defer {
            last.store(MonotonicClock.now(), ordering: .relaxed)
            waiting.subtract(1, ordering: .relaxed)
        }
        try wait()
    }

    /// The shortage that lasts at a time; nil if none does, or one that has just begun.
    func current(at now: UInt64) -> PageFetcher.Shortage? {
        let isWaiting = waiting.load(ordering: .relaxed) > 0
        let (begin, end) = (first.load(ordering: .relaxed), isWaiting ? now : last.load(ordering: .relaxed))
        guard end > 0, end >= begin + ShortageRecord.patience, now < end + ShortageRecord.quiet else { return nil }
        return isHuge.load(ordering: .relaxed) ? .hugePages : .memory
    }
}

extension ArrivingMemory {
    /// Milliseconds between two looks at the events while a thread waits for memory.
    private static let slice: UInt64 = 10

    /// Waits before the next attempt to place a page for which no memory was left.
    ///
    /// Events are read meanwhile: the process may wait for one of them, and drop memory.
    ///
    /// - Parameters:
    ///   - failure: the error of the attempt.
    ///   - pauses: how often the caller has waited for this page. Each pause is twice as long as the one before, from
    ///     1 ms to 1 s.
    /// - Throws: `failure` if pages do not wait for memory, ``PlacementFailure/ended`` if the agent is closing.
    @inline(never)
    func waitForMemory(_ failure: PlacementFailure, _ pauses: inout Int) throws(PlacementFailure) {
        guard waitsForMemory, let lacking = failure.shortage else { throw failure }
        let end = MonotonicClock.now() + 1_000_000 * min(1000, 1 << UInt64(min(pauses, 10)))
        pauses += 1
        try shortage.note(lacking) { () throws(PlacementFailure) in
            while true {
                // Throws if the agent is closing.
                try pause()
                let now = MonotonicClock.now()
                guard now < end else { return }
                MonotonicClock.sleep(nanoseconds: min(end - now, ArrivingMemory.slice * 1_000_000))
            }
        }
    }
}

import Synchronization

/// Work that keeps the processors busy, such as a push: while such work is under way, no processor becomes idle.
///
/// A thread that polls meanwhile gains nothing, and takes processors from the work. Any thread may call any method.
package struct RecentWork: ~Copyable, Sendable {
    /// The nanoseconds after the latest piece of work for which the work counts as under way.
    private static let pause: UInt64 = 1_000_000

    /// The time of the latest piece of work.
    ///
    /// Relaxed: a thread that reads an old value polls once in vain, or sleeps once where polling was worth it.
    private let latest = Atomic<UInt64>(0)

    /// Makes work that has not begun.
    package init() {}

    /// Notes a piece of work.
    @inline(__always)
    package func note() { latest.store(MonotonicClock.now(), ordering: .relaxed) }

    /// Whether a piece of work was done in the latest millisecond.
    @inline(__always)
    package var isUnderWay: Bool {
        let latest = latest.load(ordering: .relaxed)
        return latest != 0 && MonotonicClock.now() < latest + RecentWork.pause
    }
}

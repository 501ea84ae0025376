import Synchronization

/// The time in which all of some threads waited at once: what QEMU calls blocktime.
public final class BlockedTime: Sendable {
    private let threads: Int
    private let waiting = Atomic<Int>(0)
    /// When the last of those that wait began to.
    private let latest = Atomic<UInt64>(0)
    private let sum = Atomic<UInt64>(0)

    /// Nothing has waited yet of this many threads.
    public init(threads: Int) {
        self.threads = threads
    }

    /// One of the threads begins to wait; times in nanoseconds.
    @inline(__always)
    public func begin(at now: UInt64) {
        latest.store(now, ordering: .relaxed)
        // Releases the time to whoever finds that all wait.
        waiting.add(1, ordering: .acquiringAndReleasing)
    }

    /// It waits no more.
    @inline(__always)
    public func end(at now: UInt64) {
        // Read first: once this thread counts as going on, it and others may begin anew.
        let since = latest.load(ordering: .relaxed)
        guard waiting.subtract(1, ordering: .acquiringAndReleasing).oldValue == threads, now > since else { return }
        sum.add(now - since, ordering: .relaxed)
    }

    /// How long all have waited at once so far, in nanoseconds.
    public var nanoseconds: UInt64 { sum.load(ordering: .relaxed) }
}

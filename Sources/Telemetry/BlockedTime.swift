import Synchronization

/// The time in which all of some threads waited at once: what QEMU calls blocktime.
public final class BlockedTime: Sendable {
    private static let countBits: UInt64 = 16
    private static let countMask: UInt64 = (1 << countBits) - 1

    private let threads: UInt64
    /// How many wait, and in the bits above when the last of them began to, in units of 256 ns: one word, so that nobody
    /// takes the one with the other's time.
    private let waiting = Atomic<UInt64>(0)
    private let sum = Atomic<UInt64>(0)

    /// Nothing has waited yet of this many threads, at most 65535.
    public init(threads: Int) {
        self.threads = UInt64(threads)
    }

    /// One of the threads begins to wait; times in nanoseconds.
    @inline(__always)
    public func begin(at now: UInt64) {
        var old = waiting.load(ordering: .relaxed)
        while true {
            let new = (now >> 8) << BlockedTime.countBits | (old & BlockedTime.countMask) + 1
            let (exchanged, seen) = waiting.weakCompareExchange(expected: old, desired: new, ordering: .relaxed)
            if exchanged { return }
            old = seen
        }
    }

    /// It waits no more.
    @inline(__always)
    public func end(at now: UInt64) {
        let old = waiting.subtract(1, ordering: .relaxed).oldValue
        guard old & BlockedTime.countMask == threads else { return }
        let since = (old >> BlockedTime.countBits) << 8
        if now > since { sum.add(now - since, ordering: .relaxed) }
    }

    /// How long all have waited at once so far, in nanoseconds, each time to within 256.
    public var nanoseconds: UInt64 { sum.load(ordering: .relaxed) }
}

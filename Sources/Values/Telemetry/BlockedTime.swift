import Synchronization

/// The time in which all threads of a group waited at once, which QEMU calls blocktime.
package final class BlockedTime: Sendable {
    private static let countBits: UInt64 = 16
    private static let countMask: UInt64 = (1 << countBits) - 1

    private let threads: UInt64
    /// The number of waiting threads and, in the bits above it, when the latest of them began, in units of 256 ns.
    ///
    /// One word holds both, so that a thread always reads a number and a time that belong together.
    private let waiting = Atomic<UInt64>(0)
    private let sum = Atomic<UInt64>(0)

    /// Makes the blocked time of `threads` threads, at most 65535, which do not wait yet.
    package init(threads: Int) {
        self.threads = UInt64(threads)
    }

    /// Notes that one of the threads begins to wait, at a time in nanoseconds.
    @inline(__always)
    package func begin(at now: UInt64) {
        var old = waiting.load(ordering: .relaxed)
        while true {
            let new = (now >> 8) << BlockedTime.countBits | (old & BlockedTime.countMask) + 1
            let (exchanged, seen) = waiting.weakCompareExchange(expected: old, desired: new, ordering: .relaxed)
            if exchanged { return }
            old = seen
        }
    }

    /// Notes that one of the threads has stopped waiting, at a time in nanoseconds.
    @inline(__always)
    package func end(at now: UInt64) {
        let old = waiting.subtract(1, ordering: .relaxed).oldValue
        guard old & BlockedTime.countMask == threads else { return }
        let since = (old >> BlockedTime.countBits) << 8
        if now > since { sum.add(now - since, ordering: .relaxed) }
    }

    /// The time in which all threads have waited at once so far, in nanoseconds, with an error of up to 256 per wait.
    package var nanoseconds: UInt64 { sum.load(ordering: .relaxed) }
}

import Synchronization

/// Looks ahead of the faults that a thread has read.
protocol LooksAhead: Sendable {
    /// Lets a batch ask for pages that nobody waits for yet, behind all those that somebody does.
    func lookAhead(_ requests: inout RequestBatch)
}

/// A policy that the faults of several threads are told to: where one of them is just being told, another's are not, and
/// nobody waits.
final class SharedPolicy<Policy: PrefetchPolicy & Sendable>: LooksAhead {
    private let policy: Mutex<Policy>

    init(_ policy: Policy) {
        self.policy = Mutex(policy)
    }

    @inline(__always)
    func lookAhead(_ requests: inout RequestBatch) {
        guard requests.hasFaults() else { return }
        if policy.withLockIfAvailable({ requests.lookAhead(by: &$0) }) == nil { requests.forgetFaults() }
    }
}

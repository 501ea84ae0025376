import Synchronization

/// Looks ahead of the faults that a thread has read.
protocol LooksAhead: Sendable {
    /// Lets a batch request pages that no fault waits for yet, after all requests for pages with faults.
    func lookAhead(_ requests: inout RequestBatch)
}

/// A policy that several threads pass faults to; a thread that finds the policy busy drops its faults and does not
/// wait.
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

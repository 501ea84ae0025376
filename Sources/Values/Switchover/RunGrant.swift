package import Identity

/// The content of RUN: the right to start the workload once.
package struct RunGrant: Hashable, Sendable {
    /// The token of this RUN, which every answer repeats.
    package let token: RunToken
    /// The epoch of the run lease that the source holds; 0 without a lease.
    package let epoch: UInt64

    package init(token: RunToken, epoch: UInt64) {
        self.token = token
        self.epoch = epoch
    }
}

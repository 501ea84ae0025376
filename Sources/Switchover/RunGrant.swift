/// Names one RUN.
///
/// A token is drawn afresh for each RUN, and whoever promises that it does not start never starts it.
public struct RunToken: Hashable, Sendable {
    /// No RUN: what CANCEL names when none was sent.
    public static let none = RunToken(0)

    /// The bits that the source drew; never 0 in a RUN.
    public let value: UInt64

    /// Wraps the bits of a token.
    public init(_ value: UInt64) {
        self.value = value
    }
}

/// Names one process that takes part in a migration.
///
/// It is drawn when the process starts.
public struct InstanceID: Hashable, Sendable {
    /// The upper 64 bits.
    public let high: UInt64
    /// The lower 64 bits.
    public let low: UInt64

    /// Joins the two halves of an instance id.
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
}

/// What RUN carries: the right to start the workload once.
public struct RunGrant: Hashable, Sendable {
    /// The token that answers to this RUN repeat.
    public let token: RunToken
    /// The run lease's epoch that the source holds; 0 without a lease.
    public let epoch: UInt64

    /// Makes the content of a RUN.
    public init(token: RunToken, epoch: UInt64) {
        self.token = token
        self.epoch = epoch
    }
}

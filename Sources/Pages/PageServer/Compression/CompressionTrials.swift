/// Decides which runs are tried: memory that did not shrink several times in a row is tried only now and then.
struct CompressionTrials: Hashable {
    /// The runs in a row that do not shrink before runs are left out.
    static let patience = 8
    /// While no run shrinks, one run of this many is tried.
    static let stride = 16

    private var failures = 0
    private var left = 0

    /// Whether to try the next run; counts the run.
    mutating func tries() -> Bool {
        guard failures >= CompressionTrials.patience else { return true }
        left += 1
        guard left == CompressionTrials.stride else { return false }
        left = 0
        return true
    }

    /// Notes whether the run that was tried has shrunk.
    mutating func note(hasShrunk: Bool) {
        failures = hasShrunk ? 0 : failures + 1
        if hasShrunk { left = 0 }
    }
}

/// How often a line of one kind may be written, so that whoever causes it again and again fills no disk.
///
/// A few come at once, then a few a second; the others are counted, and their count is told.
public struct RepeatLimit: Hashable, Sendable {
    /// Lines that may come at once.
    public static let burst: UInt64 = 20
    /// Lines a second after that.
    public static let perSecond: UInt64 = 5
    private static let second: UInt64 = 1_000_000_000

    /// When as many lines as were written would all be due, in nanoseconds of a clock that never goes back.
    private var due: UInt64 = 0
    /// Lines that were counted instead of written.
    private var kept = 0

    /// Nothing was written yet.
    public init() {}

    /// Whether a line may be written now; otherwise it is counted.
    ///
    /// - Parameter now: nanoseconds of a clock that never goes back.
    public mutating func allows(at now: UInt64) -> Bool {
        let pause = RepeatLimit.second / RepeatLimit.perSecond
        let begin = max(due, now)
        guard begin - now <= pause * (RepeatLimit.burst - 1) else {
            kept += 1
            return false
        }
        due = begin + pause
        return true
    }

    /// How many lines were counted since this was asked last.
    public mutating func takeKept() -> Int {
        defer { kept = 0 }
        return kept
    }
}

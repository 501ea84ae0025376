/// Rates of counters, over at least the last second between two looks.
package struct RateMeter<Key: Hashable & Sendable>: Sendable {
    private struct Look {
        var count: UInt64
        var time: UInt64
        var rate: Double
    }

    private static var least: UInt64 { 1_000_000_000 }
    private var looks: [Key: Look] = [:]

    /// Makes a meter that has looked at nothing.
    package init() {}

    /// Looks at a counter, and returns its rate per second; 0 until a second has passed since the first look.
    ///
    /// - Parameters:
    ///   - key: the counter.
    ///   - count: its value.
    ///   - now: the time in nanoseconds, of a clock that never goes back.
    package mutating func rate(of key: Key, count: UInt64, at now: UInt64) -> Double {
        guard let look = looks[key], count >= look.count else {
            looks[key] = Look(count: count, time: now, rate: 0)
            return 0
        }
        guard now - min(now, look.time) >= Self.least else { return look.rate }
        let rate = Double(count - look.count) * 1e9 / Double(now - look.time)
        looks[key] = Look(count: count, time: now, rate: rate)
        return rate
    }
}

import Foundation

/// The bounds of a quantile of the distribution from which counted durations were drawn.
///
/// The bounds are order statistics: whatever the distribution, the number of durations below its quantile `q` is
/// binomially distributed if the durations are independent. The bounds are those of the parts in which the two order
/// statistics were counted, so that they are never too narrow.
package struct QuantileInterval: Hashable, Sendable {
    /// The probability with which the interval holds the quantile, at least.
    package static let confidence = 0.99
    /// The standard deviations of a normal distribution that hold ``confidence``.
    private static let deviations = 2.5758

    /// The lower bound, in the unit of the parts.
    package let low: Double
    /// The upper bound, in the unit of the parts.
    package let high: Double

    /// Bounds a quantile.
    ///
    /// The result is nil if there are too few durations to bound the quantile on both sides.
    ///
    /// - Parameters:
    ///   - quantile: the quantile, above 0 and below 1.
    ///   - parts: for each part of the scale its end and the number of durations, as in ``Report/Distribution``.
    ///   - perOctave: the equal parts of an octave.
    package init?(of quantile: Double, in parts: [[Double]], perOctave: Int) {
        let sorted = parts.filter { $0.count == 2 && $0[0] > 0 && $0[1] > 0 }.sorted { $0[0] < $1[0] }
        let count = sorted.reduce(0) { $0 + $1[1] }.rounded()
        guard let (lower, upper) = QuantileInterval.ranks(of: quantile, among: count) else { return nil }
        func end(ofRank rank: Double) -> Double? {
            var below = 0.0
            return sorted.first { part in
                below += part[1]
                return below >= rank
            }?[0]
        }
        guard let first = end(ofRank: lower), let last = end(ofRank: upper) else { return nil }
        (low, high) = (first / exp2(1 / Double(max(1, perOctave))), last)
    }

    /// Whether the intervals have room between them.
    ///
    /// Two distributions with the same quantile have such intervals in fewer than 1 of 1000 cases. Intervals that touch
    /// count as overlapping, since their parts may hold nearly equal durations.
    package func isApart(from other: QuantileInterval) -> Bool {
        let margin = 1 + 1e-6
        return high * margin < other.low || other.high * margin < low
    }

    /// The ranks, from 1, of the order statistics that bound a quantile; nil if there are too few.
    static func ranks(of quantile: Double, among count: Double) -> (lower: Double, upper: Double)? {
        let (mean, variance) = (count * quantile, count * quantile * (1 - quantile))
        let tail = (1 - confidence) / 2
        guard count >= 1, variance.isFinite else { return nil }
        if variance > 10_000 {
            // The binomial distribution is as good as normal here, and its sums would be long.
            let spread = deviations * variance.squareRoot()
            return ((mean - spread).rounded(.down), min(count, (mean + spread).rounded(.up) + 1))
        }
        // What lies beyond 12 standard deviations, and a few counts for a small deviation, is far below the tail.
        let reach = 12 * variance.squareRoot() + 40
        func probability(_ below: Double) -> Double {
            let ways = lgamma(count + 1) - lgamma(below + 1) - lgamma(count - below + 1)
            return exp(ways + below * log(quantile) + (count - below) * log(1 - quantile))
        }
        // The lower rank r has P(fewer than r durations are below the quantile) <= tail.
        var (lower, sum) = (max(0, (mean - reach).rounded(.down)), 0.0)
        while lower <= count {
            sum += probability(lower)
            if sum > tail { break }
            lower += 1
        }
        // The upper rank r has P(at least r durations are below the quantile) <= tail.
        var upper = min(count, (mean + reach).rounded(.up))
        sum = 0
        while upper >= 0 {
            sum += probability(upper)
            if sum > tail { break }
            upper -= 1
        }
        upper += 1
        return lower >= 1 && upper <= count ? (lower, upper) : nil
    }
}

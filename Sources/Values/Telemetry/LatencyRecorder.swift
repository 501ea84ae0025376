import Foundation
package import Histogram
import Synchronization

/// A counter of durations that any number of threads may write and read, without locks and without allocation.
///
/// There are 128 buckets between two successive powers of two, so that a duration is recorded to within 0.8 %.
/// ``histogram(of:adding:)`` computes percentiles.
package final class LatencyRecorder: Sendable {
    private static let subBucketBits = 7
    private static let subBuckets = 1 << subBucketBits
    /// The longest duration in nanoseconds, 18 minutes; a longer one is counted as this.
    private static let longest: UInt64 = (1 << 40) - 1
    private static let bucketCount = bucket(longest) + 1

    private let buckets: Buckets

    /// `@unchecked Sendable`: the memory never moves, and every access is atomic.
    private final class Buckets: @unchecked Sendable {
        let counts: UnsafeMutablePointer<Atomic<UInt64>>
        init() {
            counts = .allocate(capacity: LatencyRecorder.bucketCount)
            for index in 0..<LatencyRecorder.bucketCount { (counts + index).initialize(to: Atomic(0)) }
        }
        deinit {
            counts.deinitialize(count: LatencyRecorder.bucketCount)
            counts.deallocate()
        }
    }

    /// Makes a recorder that has counted nothing.
    package init() {
        buckets = Buckets()
    }

    /// Counts one duration, in nanoseconds.
    @inline(__always)
    package func record(nanoseconds: UInt64) {
        let counter = buckets.counts + LatencyRecorder.bucket(min(nanoseconds, LatencyRecorder.longest))
        counter.pointee.add(1, ordering: .relaxed)
    }

    @inline(__always)
    private static func bucket(_ value: UInt64) -> Int {
        let exponent = max(0, 63 - subBucketBits - (value | 1).leadingZeroBitCount)
        return exponent << subBucketBits + Int(truncatingIfNeeded: value >> UInt64(exponent))
    }

    private static func middle(ofBucket bucket: Int) -> UInt64 {
        guard bucket >= 2 * subBuckets else { return UInt64(bucket) }
        let exponent = bucket >> subBucketBits - 1
        let low = UInt64(bucket - exponent << subBucketBits) << UInt64(exponent)
        return low + (1 << UInt64(exponent)) / 2
    }

    /// The durations of several recorders together, in nanoseconds.
    ///
    /// - Parameters:
    ///   - recorders: the recorders.
    ///   - more: nanoseconds to add to each duration, at most 2^40.
    package static func histogram(of recorders: [LatencyRecorder], adding more: UInt64 = 0) -> Histogram<UInt64> {
        var histogram = Histogram<UInt64>(highestTrackableValue: 1 << 41, numberOfSignificantValueDigits: .three)
        forEachDuration(of: recorders) { _ = histogram.record($0 + more, count: $1) }
        return histogram
    }

    /// The number of durations in several recorders, and their sum in nanoseconds.
    package static func sum(of recorders: [LatencyRecorder]) -> (count: UInt64, nanoseconds: UInt64) {
        var sum: (count: UInt64, nanoseconds: UInt64) = (0, 0)
        forEachDuration(of: recorders) { sum = (sum.count + $1, sum.nanoseconds + $0 * $1) }
        return sum
    }

    /// The number of durations from 2^n up to 2^(n+1) microseconds, for each n from 0 to 31.
    ///
    /// Durations below 1 µs are counted at n = 0.
    ///
    /// - Parameters:
    ///   - recorders: the recorders.
    ///   - more: nanoseconds to add to each duration, at most 2^40.
    package static func powersOfTwo(of recorders: [LatencyRecorder], adding more: UInt64 = 0) -> [UInt64] {
        var counts = [UInt64](repeating: 0, count: 32)
        forEachDuration(of: recorders) { counts[63 - (($0 + more) / 1000 | 1).leadingZeroBitCount] += $1 }
        return counts
    }

    /// The number of durations in each eighth of an octave, as the end of the eighth in microseconds and the number.
    ///
    /// An eighth begins at its end divided by 2^(1/8). Those without a duration are left out.
    ///
    /// - Parameters:
    ///   - recorders: the recorders.
    ///   - more: nanoseconds to add to each duration, at most 2^40.
    package static func eighths(of recorders: [LatencyRecorder], adding more: UInt64 = 0) -> [[Double]] {
        var counts: [Int: UInt64] = [:]
        forEachDuration(of: recorders) { counts[eighth(of: $0 + more), default: 0] += $1 }
        return sorted(counts)
    }

    /// The number of durations in each eighth of an octave, as ``eighths(of:adding:)`` counts them.
    ///
    /// - Parameter histogram: durations in nanoseconds.
    package static func eighths(of histogram: Histogram<UInt64>) -> [[Double]] {
        var counts: [Int: UInt64] = [:]
        for part in histogram.recordedValues() { counts[eighth(of: part.value), default: 0] += part.count }
        return sorted(counts)
    }

    /// The number of the eighth of an octave that holds a duration; the first one above 1 µs is 1.
    private static func eighth(of nanoseconds: UInt64) -> Int {
        Int((log2(max(0.125, Double(nanoseconds) / 1000)) * 8).rounded(.down)) + 1
    }

    private static func sorted(_ counts: [Int: UInt64]) -> [[Double]] {
        counts.sorted { $0.key < $1.key }.map { [exp2(Double($0.key) / 8), Double($0.value)] }
    }

    private static func forEachDuration(
        of recorders: [LatencyRecorder],
        _ body: (_ nanoseconds: UInt64, _ count: UInt64) -> Void
    ) {
        for index in 0..<bucketCount {
            let count = recorders.reduce(0) { $0 + $1.buckets.counts[index].load(ordering: .relaxed) }
            if count > 0 { body(middle(ofBucket: index), count) }
        }
    }
}

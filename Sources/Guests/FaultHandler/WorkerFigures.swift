import Foundation
import PageFetcher
import Telemetry

/// What the workers of one guest have counted, all of them together.
struct WorkerFigures: Equatable {
    /// The powers of two, in microseconds, by which ``served`` is counted.
    static let buckets = 32
    /// The words before those of ``served``.
    private static let heads = 8
    /// The size in a guest's state, in words of 8 bytes.
    static let wordCount = heads + buckets

    /// The guest's state, as ``GuestFate/State/code`` numbers it.
    var state = 0
    /// Pages that are here.
    var resident = 0
    /// Pages that a thread waited for.
    var demand = 0
    /// Pages that came before they were touched.
    var ahead = 0
    /// Faults whose page has not arrived.
    var waiting = 0
    /// Since when the oldest of these faults waits, in nanoseconds of the monotonic clock; 0 if none waits.
    var waitingSince: UInt64 = 0
    /// The sum of the times from reading a fault to placing its page, in nanoseconds.
    var nanoseconds: UInt64 = 0
    /// The number of these times from 2^n up to 2^(n+1) microseconds, for each n.
    var served = [UInt64](repeating: 0, count: buckets)

    /// Makes figures of a guest for which nothing was counted.
    init() {}

    /// The largest count that is read, far above any that a worker writes.
    private static let most: UInt64 = 1 << 48

    /// Reads figures out of a guest's state.
    init(words: UnsafeMutableBufferPointer<UInt64>) {
        func count(_ index: Int) -> Int { Int(min(words[index], WorkerFigures.most)) }
        (state, resident, demand, ahead, waiting) = (count(0), count(1), count(2), count(3), count(4))
        (waitingSince, nanoseconds) = (words[5], words[6])
        served = words[WorkerFigures.heads...].map { min($0, WorkerFigures.most) }
    }

    /// The words in a guest's state.
    var words: [UInt64] {
        [state, resident, demand, ahead, waiting].map { UInt64(clamping: $0) } + [waitingSince, nanoseconds, 0] + served
    }

    /// Adds what the present worker has counted to what the earlier ones had.
    ///
    /// - Parameters:
    ///   - progress: the worker's pages.
    ///   - service: the worker's times from reading a fault to placing its page.
    func adding(_ progress: PageFetcher.Progress, _ service: [LatencyRecorder]) -> WorkerFigures {
        var sum = self
        sum.resident = progress.pagesResident
        sum.demand &+= progress.demand
        sum.ahead &+= progress.prefetched + progress.pushed + progress.zero
        sum.waiting = progress.waiting
        sum.waitingSince = progress.waitingSince ?? 0
        sum.nanoseconds &+= LatencyRecorder.sum(of: service).nanoseconds
        for (index, count) in LatencyRecorder.powersOfTwo(of: service).enumerated() { sum.served[index] &+= count }
        return sum
    }

    /// The time that a share of the faults stayed below, in microseconds, estimated within a power of two; 0 without a
    /// fault.
    func percentile(_ share: Double) -> Double {
        let all = served.reduce(0, +)
        var left = Double(all) * share
        for (index, count) in served.enumerated() where count > 0 {
            let low = index == 0 ? 0 : Double(1 << index)
            if left <= Double(count) { return low + (Double(2 << index) - low) * left / Double(count) }
            left -= Double(count)
        }
        return 0
    }

    /// The number of faults by the powers of two of their times: the end of each in microseconds, and the number.
    var octaves: [[Double]] {
        served.enumerated().filter { $0.element > 0 }.map { [exp2(Double($0.offset + 1)), Double($0.element)] }
    }

    /// The times from reading a fault to placing its page, estimated within a power of two.
    var service: LatencySummary {
        var summary = LatencySummary()
        summary.count = served.reduce(0, +)
        guard summary.count > 0 else { return summary }
        summary.total = Double(nanoseconds) / 1e3
        summary.mean = summary.total / Double(summary.count)
        (summary.p50, summary.p90) = (percentile(0.5), percentile(0.9))
        (summary.p99, summary.p999) = (percentile(0.99), percentile(0.999))
        summary.max = octaves.last?[0] ?? 0
        return summary
    }
}

extension GuestFate.State {
    /// The names of all states, for operators: a guest that is held waits until its pages can be had again.
    static let names = ["unserved", "unlinked", "linked", "held", "complete", "killed", "ended"]

    /// The place of the state's name in ``names``.
    var code: Int {
        switch self {
        case .unserved: 0
        case .unlinked: 1
        case .linked: 2
        case .held, .hangingUp, .returning: 3
        case .complete: 4
        case .killed: 5
        case .ended: 6
        }
    }
}

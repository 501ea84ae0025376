import Guest
import PageFetcher
import Telemetry

extension DestinationSession {
    /// A number of durations, and their sum in nanoseconds.
    typealias Sum = (count: UInt64, nanoseconds: UInt64)

    /// The latency of the faults so far.
    struct Latency: Sendable {
        /// Time from reading a fault until its page is placed.
        var service: Sum
        /// The number of such times, by powers of two of microseconds.
        var distribution: [UInt64]
        /// The time that each of the workload's threads waited; empty if that cannot be measured.
        var threads: [Sum]
        /// Time from reading a fault until its page is placed, for faults of other threads than the workload's.
        var others: Sum
        /// How long all of the workload's threads waited at the same time, in nanoseconds; nil if that cannot be
        /// measured.
        var blocked: UInt64?
    }

    /// The latency of the faults so far; nil before the guest's memory is here.
    func latency() -> Latency? {
        guard let arrival, let fetcher = arrival.fetcher, let workload = arrival.workload else { return nil }
        let service = LatencyRecorder.sum(of: fetcher.service)
        var threads = workload.stalls.map { LatencyRecorder.sum(of: [$0]) }
        if threads.isEmpty {
            threads = fetcher.threadStalls.map { ($0.count, arrival.stallNanoseconds($0)) }
        }
        return Latency(
            service: service,
            distribution: LatencyRecorder.powersOfTwo(of: fetcher.service),
            threads: threads,
            // If the workload's threads are not known, every fault counts as another thread's.
            others: threads.isEmpty ? service : arrival.loadFaults,
            blocked: workload.blockedNanoseconds
        )
    }
}

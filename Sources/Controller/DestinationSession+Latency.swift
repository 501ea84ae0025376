import DestinationAgent
import Guest
import Telemetry

extension DestinationSession {
    /// Durations that were counted, and their sum in nanoseconds.
    typealias Sum = (count: UInt64, nanoseconds: UInt64)

    /// What faults have cost so far.
    struct Latency: Sendable {
        /// From reading a fault to its page placed.
        var service: Sum
        /// The same by powers of two of microseconds.
        var distribution: [UInt64]
        /// What each of the workload's threads waited; empty where it cannot know.
        var threads: [Sum]
        /// From reading a fault to its page placed, for faults of others than the workload's threads.
        var others: Sum
        /// How long all of the workload's threads waited at once, in nanoseconds; nil where it cannot know.
        var blocked: UInt64?
    }

    /// What faults have cost so far; nil before the guest's memory is here.
    func latency() -> Latency? {
        guard let agent, let workload else { return nil }
        let service = LatencyRecorder.sum(of: agent.service)
        let stalls = workload.stalls
        return Latency(
            service: service,
            distribution: LatencyRecorder.powersOfTwo(of: agent.service),
            threads: stalls.map { LatencyRecorder.sum(of: [$0]) },
            // Where no thread is known to be the workload's, each is another.
            others: stalls.isEmpty ? service : loadFaults,
            blocked: workload.blockedNanoseconds
        )
    }
}

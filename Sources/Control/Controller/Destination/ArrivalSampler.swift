import LinuxSystem
import PageFetcher
import Telemetry

/// Samples the times at which the memory of a workload arrives, until all of it is here.
///
/// The time between two samples grows with the time since the permission to start, so that a time is wrong by at most
/// a fiftieth of itself and 5 ms, and a long migration is not looked at often.
final class ArrivalSampler: Sendable {
    /// When the permission to start arrived, in nanoseconds of ``MonotonicClock``.
    let begin: UInt64
    private let fetcher: PageFetcher
    private let times: ArrivalTimes

    /// Makes a sampler for the memory that a fetcher fills.
    init(of fetcher: PageFetcher, _ regions: [(name: String, pageCount: Int, pageSize: Int)], since begin: UInt64) {
        (self.fetcher, self.begin) = (fetcher, begin)
        times = ArrivalTimes(regions)
    }

    /// Samples until all memory is here, or nobody holds the sampler any longer.
    func start() {
        Task { [weak self] in
            while let pause = self?.look() {
                // A task that nobody cancels sleeps as long as it is told.
                try? await Task.sleep(for: pause)
            }
        }
    }

    /// Takes a sample; returns the time until the next one, or nil after the last.
    private func look() -> Duration? {
        let isComplete = fetcher.isComplete
        sample()
        return isComplete ? nil : max(.milliseconds(5), MonotonicClock.time(since: begin) / 50)
    }

    private func sample(atMost bound: UInt64 = .max) {
        let now = MonotonicClock.now()
        let time = min(bound, (now - min(now, begin)) / 1_000_000)
        times.sample(at: time) { [fetcher] in fetcher.presentCount(of: $0, region: $1) }
    }

    /// The times so far, after another sample.
    ///
    /// - Parameter microseconds: when the last page arrived, after which no cell can have arrived; nil if none is known.
    func arrivals(until microseconds: Double?) -> Report.Arrivals {
        sample(atMost: microseconds.map { UInt64(max(0, $0) / 1000) } ?? .max)
        return times.arrivals
    }
}

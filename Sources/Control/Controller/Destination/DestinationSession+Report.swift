import Connections
import Guest
import Identity
import LinuxSystem
import PageFetcher
import PageProtocol
import Switchover
import Telemetry

extension DestinationSession {
    /// The migration's present state, for clients.
    struct Status: Sendable {
        var state: MigrationState
        /// Whether the workload has started here, so that clients can stop and resume it.
        var hasStarted: Bool
        /// Whether the migration has failed, so that another one may begin.
        var hasFailed: Bool
        var failureReason: String?
        /// The listener's address, with the port that the kernel chose.
        var address: SocketAddress
        /// Whether the session still listens.
        var isListening: Bool
        /// The size of a page in bytes, the largest one if regions differ; 0 before a source has said so.
        var pageSize: Int
        var progress: PageFetcher.Progress
        var totalMicroseconds: Double
    }

    /// The recorders of a report's distributions, which are summarized outside the session.
    ///
    /// A summary takes about a millisecond. The session decides meanwhile who runs the workload.
    struct Recorders: Sendable {
        var service: [LatencyRecorder] = []
        var stalls: [LatencyRecorder] = []
        /// What ``stalls`` were measured by; nil if there are none.
        var stallOrigin: Report.StallOrigin?
        /// Nanoseconds to add to each of ``stalls``.
        var delivery: UInt64 = 0
        var sampler: ArrivalSampler?

        /// Adds the summaries to the destination's part of a report.
        func summarize(into report: inout AgentReport) {
            let resident = report.destination?.untilResident ?? 0
            report.destination?.arrivals = sampler?.arrivals(until: resident > 0 ? resident : nil)
            report.destination?.service = LatencySummary(service)
            report.destination?.stall = LatencySummary(stalls, adding: delivery)
            report.destination?.distribution = Report.Distribution(
                stall: LatencyRecorder.eighths(of: stalls, adding: delivery),
                service: LatencyRecorder.eighths(of: service)
            )
        }
    }

    /// Whether a source has connected whose migration has not ended.
    var isUnderWay: Bool {
        link != nil || machine.state != .setup && !machine.state.isEnd && !machine.hasGivenUp
    }

    func snapshot() -> Status {
        let end = timeline[.end] ?? MonotonicClock.now()
        // A source that was refused and brought no workload does not count in the total time.
        let begin = machine.state == .setup && link == nil ? end : timeline[.begin] ?? end
        return Status(
            state: machine.state,
            hasStarted: hasStarted,
            hasFailed: machine.hasGivenUp,
            failureReason: machine.failureReason,
            address: listener.acceptor.address,
            isListening: listener.isOpen && !listener.isHandedOver,
            pageSize: arrival?.announcement.description.regions.map(\.pageSize).max() ?? 0,
            progress: arrival?.progress ?? PageFetcher.Progress(),
            totalMicroseconds: Timeline<Moment>.microseconds(from: begin, to: end)
        )
    }

    private var hasStarted: Bool {
        switch machine.state {
        case .postcopyActive, .postcopyPaused, .postcopyRecoverSetup, .postcopyRecover, .completed: true
        case .none, .setup, .active, .preSwitchover, .device, .postcopyDevice, .cancelling, .cancelled, .failed: false
        }
    }

    /// Adds the destination's part to a report, except for the distributions of latencies.
    ///
    /// - Returns: the recorders of the distributions.
    func fill(_ report: inout AgentReport) -> Recorders {
        let snapshot = snapshot()
        // The migration of a refused source must not appear as that of the next source.
        if machine.state != .setup { report.migration = peer?.migration.description }
        report.states = states.states
        report.path = states.path.times(since: timeline[.begin])
        report.error = snapshot.failureReason ?? (machine.state == .postcopyPaused ? links.lastLoss : nil)
        report.total = snapshot.totalMicroseconds
        var destination = AgentReport.Destination()
        destination.load = timeline.microseconds(from: .loadBegun, to: .loaded)
        destination.untilStarted = timeline.microseconds(from: .runReceived, to: .started)
        destination.start = microsecondsToFirstOperation
        destination.untilResident = timeline.microseconds(from: .runReceived, to: .resident)
        destination.pages.total = snapshot.progress.pagesTotal
        destination.pages.demand = snapshot.progress.demand
        destination.pages.pushed = snapshot.progress.pushed
        destination.pages.zero = snapshot.progress.zero
        destination.pages.prefetched = snapshot.progress.prefetched
        destination.pages.prefetchedUnused = snapshot.progress.prefetchedUnused
        destination.pages.duplicate = snapshot.progress.duplicate
        destination.waitingFaults = snapshot.progress.waiting
        if let since = snapshot.progress.waitingSince {
            destination.oldestFault = Timeline<Moment>.microseconds(from: since, to: MonotonicClock.now())
        }
        destination.awaitsCont = machine.awaitsCont
        destination.endedInStart = course.hasEndedInStart
        var recorders = arrival?.recorders ?? Recorders()
        recorders.sampler = arrival?.sampler
        destination.stallOrigin = recorders.stallOrigin
        if recorders.stallOrigin == .faults { destination.threads = stalledThreads }
        destination.floor = arrival?.floor ?? Report.Floor()
        report.destination = destination
        return recorders
    }

    /// The threads of another process that have waited for pages; nil once the memory is freed.
    private var stalledThreads: [Report.Thread]? {
        guard let arrival, let fetcher = arrival.fetcher else { return nil }
        let now = MonotonicClock.now()
        return fetcher.threadStalls.map { thread in
            Report.Thread(
                id: thread.thread,
                count: thread.count,
                total: Double(arrival.stallNanoseconds(thread)) / 1000,
                waiting: thread.open.map {
                    Report.Thread.Wait(
                        region: $0.region,
                        page: $0.page,
                        time: Timeline<Moment>.microseconds(from: $0.since, to: now)
                    )
                }
            )
        }
    }

    /// Begins to sample when the memory arrives, unless this permission to start was received before.
    func sampleArrivals() {
        guard let begin = timeline[.runReceived], let arrival, let fetcher = arrival.fetcher,
            arrival.sampler?.begin != begin
        else { return }
        let sampler = ArrivalSampler(of: fetcher, arrival.announcement.shapes, since: begin)
        self.arrival?.sampler = sampler
        sampler.start()
    }

    /// Records when the workload's first operation here ended, before a stop and a resume overwrite that time.
    func noteFirstOperation() {
        guard !hasArrivedPaused, let arrival, arrival.firstOperation == nil, let begin = timeline[.runReceived],
            let first = arrival.workload?.activity.firstOperation ?? timeline[.started], first > begin
        else { return }
        self.arrival?.firstOperation = first
    }

    private var microsecondsToFirstOperation: Double {
        noteFirstOperation()
        guard let begin = timeline[.runReceived], let firstOperation = arrival?.firstOperation else { return 0 }
        return Timeline<Moment>.microseconds(from: begin, to: firstOperation)
    }
}

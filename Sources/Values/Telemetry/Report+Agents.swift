import Identity

extension Report {
    /// Combines the two agents' reports into one.
    ///
    /// - Parameters:
    ///   - source: the source's report; nil if the source never answered.
    ///   - destination: the destination's report; nil if the destination never answered.
    ///   - gone: the sides that no longer answer, and whose report is their last one.
    ///   - verify: the check of every page, made by the side that has the workload.
    package init(source: AgentReport?, destination: AgentReport?, gone: Set<Side> = [], verify: Verify) {
        var gone = gone
        if source == nil { gone.insert(.source) }
        if destination == nil { gone.insert(.destination) }
        self.verify = verify
        let known = source ?? destination
        pageSize = known?.pageSize ?? 0
        memoryBytes = known?.memoryBytes ?? 0
        // A destination that this migration has not reached may tell of another one.
        let isSame = source == nil || source?.migration == destination?.migration
        let destination = isSame || destination?.migration == nil ? destination : nil
        total = max(source?.total ?? 0, isSame ? destination?.total ?? 0 : 0)
        self.source.states = source?.states ?? []
        self.destination.states = destination?.states ?? []
        runsOn = Report.place(source, destination, gone)
        workload.name = known?.workload ?? ""
        workload.opsSource = source?.operations ?? 0
        workload.opsDestination = destination?.operations ?? 0
        workload.opsAfterTakeBack = source?.source?.operationsAfterTakeBack ?? 0
        if let arrived = destination?.destination {
            pages = arrived.pages
            stall = arrived.stall
            stallOrigin = arrived.stallOrigin
            threads = arrived.threads
            service = arrived.service
            waiting.faults = arrived.waitingFaults
            waiting.oldest = Report.finite(arrived.oldestFault)
            floor = arrived.floor
            distribution = arrived.distribution
            arrivals = arrived.arrivals
            if arrived.untilResident > 0 {
                throughput = Report.finite(Double(memoryBytes) / 1_048_576 / (arrived.untilResident / 1_000_000))
            }
        }
        pushLanes = source?.source?.pushLanes
        if var compression = source?.source?.compression {
            compression.processorTime = Report.finite(compression.processorTime)
            self.compression = compression
        }
        if let source, let destination { course = Report.course(source, destination) }
        if let left = source?.source { measureSwitchover(left, destination?.destination) }
        conclude(source: source, destination: destination, gone)
    }

    /// The side on which the workload runs, as far as the answering agents know; nil if they do not know.
    private static func place(_ source: AgentReport?, _ destination: AgentReport?, _ gone: Set<Side>) -> Side? {
        if !gone.contains(.destination), destination?.runsHere == true { return .destination }
        if !gone.contains(.source), source?.runsHere == true { return .source }
        if source?.mayRunAlone == true || destination?.mayRunAlone == true { return nil }
        let started: Set<MigrationState> = [
            .postcopyActive, .postcopyPaused, .postcopyRecoverSetup, .postcopyRecover, .completed,
        ]
        func last(_ report: AgentReport?) -> MigrationState { report?.states.last ?? MigrationState.none }
        return switch (gone.contains(.source), gone.contains(.destination)) {
        case (false, false): .nobody
        // The destination runs the workload only if the source has permitted the start.
        case (false, true): started.contains(last(source)) || last(source) == .cancelling ? nil : .nobody
        // After a start at the destination, the workload never runs on the source again.
        case (true, false): started.contains(last(destination)) ? .nobody : nil
        case (true, true): nil
        }
    }

    /// The states of both sides on the source's clock; nil if an agent does not say its times.
    ///
    /// Both sides enter postcopy-active when the workload has started: the destination at the start, the source when
    /// RUNNING arrives, a way of the link later. Of a migration that never came so far, both begin at the same time.
    private static func course(_ source: AgentReport, _ destination: AgentReport) -> Course? {
        guard let here = source.path, let there = destination.path else { return nil }
        let way = finite(destination.destination?.floor.roundTripP50 ?? 0) / 2
        func start(_ path: [Passed]) -> Double? { path.first { $0.state == .postcopyActive }?.at }
        var course = Course(error: way, source: here, destination: there)
        if let left = start(here), let arrived = start(there) {
            let shift = left - way - arrived
            for index in there.indices { course.destination[index].at = max(0, there[index].at + shift) }
        }
        return course
    }

    /// The error text if it is unknown where the workload runs: why, and what to do.
    private static func silence(_ gone: Set<Side>) -> String {
        let remedy = "with pageferry status, or at the workload itself"
        return gone.count > 1
            ? "neither agent answers any more: look at both \(remedy)"
            : "the \(gone.contains(.source) ? "source" : "destination")'s agent does not answer: look at it \(remedy)"
    }

    /// Computes the parts of the switchover, and the downtime, from both agents' measurements.
    ///
    /// Only durations are subtracted, never times of two clocks. The way of one message counts as half a round trip.
    private mutating func measureSwitchover(_ left: AgentReport.Source, _ arrived: AgentReport.Destination?) {
        switchover.stop = left.stop
        switchover.save = left.save
        guard let arrived, left.untilLoaded > 0 else { return }
        switchover.load = arrived.load
        switchover.transfer = Report.finite(max(0, left.untilLoaded - arrived.load))
        guard left.untilRunning > 0 else { return }
        switchover.start = arrived.start
        switchover.grant = Report.finite(max(0, left.untilRunning - arrived.untilStarted))
        let roundTrip = max(0, (left.runToRunning ?? left.untilRunning) - arrived.untilStarted)
        downtime = Report.finite(left.lastOperationToRun + roundTrip / 2 + arrived.start)
    }

    /// Replaces infinities and NaN, which JSON cannot represent, by 0; an agent may report any number.
    private static func finite(_ value: Double) -> Double { value.isFinite ? value : 0 }

    private mutating func conclude(source: AgentReport?, destination: AgentReport?, _ gone: Set<Side>) {
        let last = (source: source?.states.last, destination: destination?.states.last)
        result =
            switch last {
            case (.completed, _), (_, .completed): .completed
            case (.cancelled, _): .cancelled
            case (.postcopyPaused, _), (_, .postcopyPaused): .paused
            default: .failed
            }
        error = result == .completed ? nil : source?.error ?? destination?.error
        if result == .completed, runsOn != .destination, let destination, let end = destination.ended {
            if destination.mayRunAlone == true {
                error = "the workload is out of the reach of the destination's agent: \(end)"
            } else if destination.destination?.endedInStart == true {
                error = "the workload has ended in its start on the destination: \(end)"
            }
        }
        if result != .completed, runsOn == nil, !gone.isEmpty {
            error = [error, Report.silence(gone)].compactMap(\.self).joined(separator: "; ")
        }
        if verify.corrupt > 0 {
            result = .failed
            error = "\(verify.corrupt) of \(verify.pagesChecked) pages do not hold what the workload wrote"
        }
    }
}

extension Report {
    /// Joins what the two agents know into one report.
    ///
    /// - Parameters:
    ///   - source: the source's part, or nil where it cannot be asked.
    ///   - destination: the destination's part, or nil where it cannot be asked.
    ///   - gone: the sides that do not answer any more, and whose part is what they told last.
    ///   - verify: the check of every page, made where the workload is.
    public init(source: AgentReport?, destination: AgentReport?, gone: Set<Side> = [], verify: Verify) {
        var gone = gone
        if source == nil { gone.insert(.source) }
        if destination == nil { gone.insert(.destination) }
        self.verify = verify
        let known = source ?? destination
        pageSize = known?.pageSize ?? 0
        memoryBytes = known?.memoryBytes ?? 0
        total = max(source?.total ?? 0, destination?.total ?? 0)
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
            service = arrived.service
            floor = arrived.floor
            if arrived.untilResident > 0 {
                throughput = Report.finite(Double(memoryBytes) / 1_048_576 / (arrived.untilResident / 1_000_000))
            }
        }
        if let left = source?.source { measureSwitchover(left, destination?.destination) }
        conclude(source: source, destination: destination, gone)
    }

    /// Where the workload runs, as far as those that answer can tell.
    private static func place(_ source: AgentReport?, _ destination: AgentReport?, _ gone: Set<Side>) -> Side? {
        if !gone.contains(.destination), destination?.runsHere == true { return .destination }
        if !gone.contains(.source), source?.runsHere == true { return .source }
        let started: Set = [
            "postcopy-active", "postcopy-paused", "postcopy-recover-setup", "postcopy-recover", "completed",
        ]
        func last(_ report: AgentReport?) -> String { report?.states.last ?? "none" }
        return switch (gone.contains(.source), gone.contains(.destination)) {
        case (false, false): .nobody
        // Only what was permitted to start there can run there.
        case (false, true): started.contains(last(source)) || last(source) == "cancelling" ? nil : .nobody
        // What has started there has left the source.
        case (true, false): started.contains(last(destination)) ? .nobody : nil
        case (true, true): nil
        }
    }

    /// Why nobody can know where the workload runs, and what to do.
    private static func silence(_ gone: Set<Side>) -> String {
        let remedy = "with pageferry status, or at the workload itself"
        return gone.count > 1
            ? "neither agent answers any more: look at both \(remedy)"
            : "the \(gone.contains(.source) ? "source" : "destination")'s agent does not answer: look at it \(remedy)"
    }

    /// Only durations of one clock are subtracted; what crosses the network is half of a round trip.
    private mutating func measureSwitchover(_ left: AgentReport.Source, _ arrived: AgentReport.Destination?) {
        switchover.stop = left.stop
        switchover.save = left.save
        guard let arrived, left.untilLoaded > 0 else { return }
        switchover.load = arrived.load
        switchover.transfer = Report.finite(max(0, left.untilLoaded - arrived.load))
        guard left.untilRunning > 0 else { return }
        switchover.start = arrived.start
        switchover.grant = Report.finite(max(0, left.untilRunning - arrived.untilStarted))
        downtime = Report.finite(left.lastOperationToRun + switchover.grant / 2 + arrived.start)
    }

    /// What JSON has a word for: an agent may say any duration.
    private static func finite(_ value: Double) -> Double { value.isFinite ? value : 0 }

    private mutating func conclude(source: AgentReport?, destination: AgentReport?, _ gone: Set<Side>) {
        let last = (source: source?.states.last, destination: destination?.states.last)
        result =
            switch last {
            case ("completed", _), (_, "completed"): .completed
            case ("cancelled", _): .cancelled
            case ("postcopy-paused", _), (_, "postcopy-paused"): .paused
            default: .failed
            }
        error = result == .completed ? nil : source?.error ?? destination?.error
        if result != .completed, runsOn == nil {
            error = [error, Report.silence(gone)].compactMap(\.self).joined(separator: "; ")
        }
        if verify.corrupt > 0 {
            result = .failed
            error = "\(verify.corrupt) of \(verify.pagesChecked) pages do not hold what the workload wrote"
        }
    }
}

extension Report {
    /// Joins what the two agents know into one report.
    ///
    /// - Parameters:
    ///   - source: the source's part, or nil where it cannot be asked.
    ///   - destination: the destination's part, or nil where it cannot be asked.
    ///   - verify: the check of every page, made where the workload is.
    public init(source: AgentReport?, destination: AgentReport?, verify: Verify) {
        self.verify = verify
        let known = source ?? destination
        pageSize = known?.pageSize ?? 0
        memoryBytes = known?.memoryBytes ?? 0
        total = max(source?.total ?? 0, destination?.total ?? 0)
        self.source.states = source?.states ?? []
        self.destination.states = destination?.states ?? []
        runsOn = destination?.runsHere == true ? .destination : source?.runsHere == true ? .source : .nobody
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
                throughput = Double(memoryBytes) / 1_048_576 / (arrived.untilResident / 1_000_000)
            }
        }
        if let left = source?.source { measureSwitchover(left, destination?.destination) }
        conclude(source: source, destination: destination)
    }

    /// Only durations of one clock are subtracted; what crosses the network is half of a round trip.
    private mutating func measureSwitchover(_ left: AgentReport.Source, _ arrived: AgentReport.Destination?) {
        switchover.stop = left.stop
        switchover.save = left.save
        guard let arrived, left.untilLoaded > 0 else { return }
        switchover.load = arrived.load
        switchover.transfer = max(0, left.untilLoaded - arrived.load)
        guard left.untilRunning > 0 else { return }
        switchover.start = arrived.start
        switchover.grant = max(0, left.untilRunning - arrived.untilStarted)
        downtime = left.lastOperationToRun + switchover.grant / 2 + arrived.start
    }

    private mutating func conclude(source: AgentReport?, destination: AgentReport?) {
        let last = (source: source?.states.last, destination: destination?.states.last)
        result =
            switch last {
            case ("completed", _), (_, "completed"): .completed
            case ("cancelled", _): .cancelled
            case ("postcopy-paused", _), (_, "postcopy-paused"): .paused
            default: .failed
            }
        error = result == .completed ? nil : source?.error ?? destination?.error
        if verify.corrupt > 0 {
            result = .failed
            error = "\(verify.corrupt) of \(verify.pagesChecked) pages do not hold what the workload wrote"
        }
    }
}

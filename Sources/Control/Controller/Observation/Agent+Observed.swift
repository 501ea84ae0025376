package import Exposition
import Guest
import Identity
import LinuxSystem
import PageFetcher
import PageServer
import QMP
import RunLease
import Switchover
package import Telemetry

extension Agent: Observed {
    /// An agent.
    package nonisolated var kind: LiveState.Kind { .agent }

    /// The migration that clients of QMP see: the outgoing one if there is one, else the incoming one.
    private enum Latest: Sendable {
        case none
        case source(SourceSession.View, PageServer)
        case destination(DestinationSession.View)
    }

    /// What is read from the agent at once; everything is computed from it elsewhere, since commands wait for the agent.
    private struct Look: Sendable {
        let workload: (any Workload)?
        let latest: Latest
        /// The connections for pages, and their rates.
        let lanes: [(lane: LaneBytes.Lane, rate: Double)]
    }

    /// The incoming session that clients see: the next one as soon as it has accepted a source.
    private var shownIncoming: DestinationSession? {
        get async {
            if let next = successor, await next.hasAccepted { return next }
            return incoming
        }
    }

    private func look() async -> Look {
        let workload = await workload
        var latest = Latest.none
        var lanes: [LaneBytes.Lane] = []
        if let outgoing {
            latest = .source(await outgoing.view(), outgoing.pageServer)
            lanes = outgoing.pageServer.laneBytes
        } else if let session = await shownIncoming {
            let view = await session.view()
            latest = .destination(view)
            lanes = view.fetcher?.laneBytes ?? []
        }
        let now = MonotonicClock.now()
        let measured = lanes.map { ($0, rates.rate(of: $0.name, count: $0.bytes, at: now)) }
        return Look(workload: workload, latest: latest, lanes: measured)
    }

    /// The migration, the pages, the lanes and the map of the memory.
    package nonisolated func liveState() async -> LiveState {
        let look = await look()
        var state = LiveState(.agent)
        var migration = LiveState.Migration()
        migration.possible = Agent.possible
        migration.edges = Agent.edges
        if let workload = look.workload {
            let description = workload.description
            migration.workload = workload.name
            migration.runsHere = workload.activity.isRunning
            migration.pageSize = description.regions.map(\.pageSize).max() ?? 0
            migration.memoryBytes = description.regions.reduce(0) { $0 + UInt64($1.pageSize) * UInt64($1.pageCount) }
        }
        switch look.latest {
        case .none: break
        case .source(let view, let pageServer):
            migration.role = .source
            migration.id = view.migration
            migration.sides = view.sides
            migration.error = view.error
            migration.total = view.status.totalMicroseconds
            migration.downtime = view.status.downtimeMicroseconds
            migration.switchover = view.switchover
            state.pages = LiveState.Pages(view.status.progress)
            state.lanes = Agent.lanes(look.lanes)
            state.map = pageServer.map
        case .destination(let view):
            migration.role = .destination
            migration.id = view.migration
            migration.sides = view.sides
            migration.error = view.error
            migration.total = view.status.totalMicroseconds
            migration.switchover = view.switchover
            migration.awaitsCont = view.awaitsCont
            if migration.memoryBytes == 0 {
                migration.memoryBytes = view.memoryBytes
                migration.pageSize = view.status.pageSize
            }
            guard view.memoryBytes > 0 else { break }
            state.pages = LiveState.Pages(view.status.progress)
            state.pages?.asked = view.fetcher?.askedCount
            state.stall = LiveState.Stall(
                view.recorders.stalls,
                adding: view.recorders.delivery,
                floor: view.floor
            )
            state.lanes = Agent.lanes(look.lanes)
            state.map = view.fetcher?.map
        }
        state.migration = migration
        return state
    }

    private static let possible = [
        "source": VisibleStates.states(of: VisibleStates.sourceEdges),
        "destination": VisibleStates.states(of: VisibleStates.destinationEdges),
    ]
    private static let edges = [
        "source": VisibleStates.sourceEdges, "destination": VisibleStates.destinationEdges,
    ]

    private static func lanes(_ lanes: [(lane: LaneBytes.Lane, rate: Double)]) -> [LiveState.Lane] {
        lanes.map { lane, rate in
            LiveState.Lane(name: "\(lane.name.kind) \(lane.name.index)", bytes: lane.bytes, rate: UInt64(rate))
        }
    }

    /// The metrics of an agent.
    package nonisolated func metrics() async -> MetricSet {
        let look = await look()
        var set = MetricSet()
        set.add(.workloadRunning, look.workload?.activity.isRunning == true ? 1 : 0)
        let role: LiveState.Migration.Role
        var state = MigrationState.none
        switch look.latest {
        case .none:
            role = .none
            if let workload = look.workload { set.add(.memoryBytes, Agent.memoryBytes(of: workload)) }
        case .source(let view, _):
            (role, state) = (.source, view.status.state)
            let progress = view.status.progress
            set.add(.memoryBytes, Double(progress.bytesTotal))
            set.add(.memoryPages, Double(progress.pagesTotal))
            set.add(.residentRatio, Agent.ratio(progress.pagesSent, progress.pagesTotal), role.rawValue)
            Agent.add(LiveState.Pages(progress), of: role, to: &set)
            set.add(.requests, Double(progress.requests))
        case .destination(let view):
            (role, state) = (.destination, view.status.state)
            let pages = LiveState.Pages(view.status.progress)
            if view.memoryBytes > 0 {
                set.add(.memoryBytes, Double(view.memoryBytes))
                set.add(.memoryPages, Double(pages.total))
                set.add(.residentRatio, Agent.ratio(pages.resident, pages.total), role.rawValue)
                Agent.add(pages, of: role, to: &set)
            }
            set.add(.waitingFaults, Double(pages.waiting))
            set.add(.oldestFault, pages.oldest / 1e6)
            set.add(.stall, DurationCounts(view.recorders.stalls, adding: view.recorders.delivery))
            set.add(.service, DurationCounts(view.recorders.service))
        }
        for (lane, rate) in look.lanes {
            let labels = [role.rawValue, lane.name.kind.rawValue, "\(lane.name.index)"]
            set.add(.laneBytes, Double(lane.bytes), labels)
            set.add(.laneRate, rate, labels)
        }
        for other in MigrationState.allCases {
            set.add(.migrationState, other == state ? 1 : 0, role.rawValue, other.rawValue)
        }
        addTally(to: &set)
        return set
    }

    private static func memoryBytes(of workload: any Workload) -> Double {
        workload.description.regions.reduce(0) { $0 + Double($1.pageSize) * Double($1.pageCount) }
    }

    private static func ratio(_ part: Int, _ whole: Int) -> Double {
        whole > 0 ? min(1, Double(part) / Double(whole)) : 0
    }

    private static func add(_ pages: LiveState.Pages, of role: LiveState.Migration.Role, to set: inout MetricSet) {
        let origins = [
            ("demand", pages.demand), ("prefetched", pages.prefetched), ("pushed", pages.pushed), ("zero", pages.zero),
            ("duplicate", pages.duplicate),
        ]
        for (origin, count) in origins { set.add(.pages, Double(count), role.rawValue, origin) }
    }

    private nonisolated func addTally(to set: inout MetricSet) {
        let counts = sink.tally.counts
        for role in [LiveState.Migration.Role.source, .destination] {
            for result in [MigrationState.completed, .failed, .cancelled] {
                let count = counts.ends[AgentTally.End(role: role, result: result)] ?? 0
                set.add(.migrations, Double(count), role.rawValue, result.rawValue)
            }
        }
        set.add(.retries, Double(counts.retries))
        set.add(.reconnects, Double(counts.reconnects))
        set.add(.pauses, Double(counts.pauses))
        set.add(.recoveries, Double(counts.recoveries))
        guard let lease else { return }
        set.add(.leaseEpoch, Double(lease.newestEpoch))
        set.add(.leaseConflicts, Double(lease.refusals))
    }

    /// Why the agent has neither a workload nor an address at which one can arrive.
    package func unreadiness() async -> String? {
        if await workload != nil { return nil }
        if let waiting = successor ?? incoming, await waiting.snapshot().isListening { return nil }
        return "this agent has no workload and listens for none; start it with --listen"
    }

    /// Carries out an action as a QMP command.
    package func act(_ action: LiveAction) async throws(ActionRefused) {
        let command =
            switch action {
            case .cancel: QMPCommand(name: AgentCommand.migrateCancel.rawValue)
            case .cont: QMPCommand(name: AgentCommand.cont.rawValue)
            case .pause: QMPCommand(name: AgentCommand.migratePause.rawValue)
            case .recover(let uri) where outgoing != nil:
                QMPCommand(name: AgentCommand.migrate.rawValue, arguments: ["uri": .string(uri), "resume": true])
            case .recover(let uri):
                QMPCommand(name: AgentCommand.migrateRecover.rawValue, arguments: ["uri": .string(uri)])
            case .fill, .release: throw ActionRefused(reason: "an agent has no restored guests", isUnknown: true)
            }
        do throws(QMPError) {
            _ = try await answer(command)
        } catch {
            throw ActionRefused(reason: error.description)
        }
    }
}

extension LiveState.Pages {
    /// The pages that a source has sent, by why it has sent them.
    fileprivate init(_ progress: PageServer.Progress) {
        self.init()
        (total, resident) = (progress.pagesTotal, progress.pagesSent)
        (demand, pushed, zero) = (progress.requestedPages, progress.pushedPages, progress.pushedZeroPages)
    }

    /// The pages that have arrived at a destination.
    fileprivate init(_ progress: PageFetcher.Progress) {
        self.init()
        (total, resident) = (progress.pagesTotal, progress.pagesResident)
        (demand, prefetched, pushed) = (progress.demand, progress.prefetched, progress.pushed)
        (zero, duplicate, waiting) = (progress.zero, progress.duplicate, progress.waiting)
        if let since = progress.waitingSince {
            oldest = Timeline<DestinationSession.Moment>.microseconds(from: since, to: MonotonicClock.now())
        }
    }
}

package import Compression
import Identity
package import LinuxSystem
import QMP
package import Telemetry

/// A migration from one agent to another, driven by a QMP client of both.
package struct Migration: Sendable {
    /// The agent that has the workload.
    package let source: AgentClient
    /// The agent that receives the workload.
    package let destination: AgentClient

    private let compression: PushCompression?

    /// Makes a migration, which ``begin(at:)`` begins.
    ///
    /// - Parameters:
    ///   - source: the agent that has the workload.
    ///   - destination: the agent that receives the workload.
    ///   - compression: how the source compresses the pages that it pushes; nil for the source's own setting.
    package init(source: AgentClient, destination: AgentClient, compression: PushCompression? = nil) {
        self.source = source
        self.destination = destination
        self.compression = compression
    }

    /// The reports of both sides; nil for a side that has exited.
    package struct Sides: Sendable {
        /// The source's report.
        package var source: AgentReport?
        /// The destination's report.
        package var destination: AgentReport?
        /// The sides that do not answer.
        package private(set) var gone: Set<Report.Side> = []

        /// Makes the reports of both sides; a side without a report counts as gone.
        package init(source: AgentReport? = nil, destination: AgentReport? = nil) {
            self.source = source
            self.destination = destination
            if source == nil { gone.insert(.source) }
            if destination == nil { gone.insert(.destination) }
        }

        /// Whether the migration has ended, as far as either side can tell: by success, failure, cancel or a pause.
        package var hasEnded: Bool {
            let ends: Set<MigrationState> = [.completed, .failed, .cancelled, .postcopyPaused]
            let here = source?.states.last.map(ends.contains)
            let there = destination?.states.last.map(ends.contains)
            // In these states the source has the workload back. Its destination may wait for another source forever.
            if source?.states.last == .failed || source?.states.last == .cancelled { return true }
            return (here ?? true) && (there ?? true)
        }

        /// Returns these reports, with the last earlier report of a side that has exited meanwhile.
        ///
        /// A side that has exited does not run the workload in its report.
        func remembering(_ earlier: Sides) -> Sides {
            func last(_ now: AgentReport?, _ before: AgentReport?) -> AgentReport? {
                guard now == nil, var gone = before else { return now }
                gone.runsHere = false
                return gone
            }
            var sides = Sides(source: last(source, earlier.source), destination: last(destination, earlier.destination))
            sides.gone = gone
            return sides
        }

        /// Whether the migration is paused on a side that answers.
        var isPaused: Bool {
            source?.states.last == .postcopyPaused || destination?.states.last == .postcopyPaused
        }
    }

    /// How long a pause may last before it may count as the end of the migration.
    private static let patience = Duration.seconds(3)

    /// Begins the migration and the switchover, and returns when both are under way.
    ///
    /// Returns also if the migration has failed already; the result of ``end(telling:)`` then has the reason. If an
    /// earlier client has begun a migration between the two agents, that migration continues from its present state.
    ///
    /// - Parameter uri: the address at which the source reaches the destination. If nil, the address at which the
    ///   destination listens, or any port of its loopback interface if it does not listen. The former is refused if it
    ///   cannot be dialed, and the latter if the source is on another host. If a migration is under way or has
    ///   completed, any address but that of this migration is refused.
    /// - Returns: whether there was anything to do.
    /// - Throws: ``AgentFailure`` with the reason if an agent refuses, or `QMPConnectionError`.
    @discardableResult
    package func begin(at uri: SocketAddress? = nil) async throws -> Beginning {
        let here = try await source.progress()
        let reached = try await progress(from: here)
        if let before = here.source?.address, reached != .notBegun, let uri, uri.description != before {
            let reason =
                reached == .completed
                ? "the workload has moved to \(before) before, and not to \(uri); nothing was done"
                : "the workload already moves to \(before), not to \(uri): omit --uri to follow that, or cancel first"
            throw AgentFailure(agent: source.address, command: "migrate", reason: reason)
        }
        switch reached {
        case .completed: return .completedBefore
        case .switchedOver: return .underWay
        case .begun: break
        case .notBegun:
            try await askForSettings()
            try await migrate(at: uri)
        }
        do {
            try await source.execute("migrate-start-postcopy")
        } catch let refusal as AgentFailure {
            // Another client may have begun the switchover, or the migration may have ended.
            let reached = try await progress(from: source.progress())
            guard reached == .switchedOver || reached == .completed else {
                guard let last = try await source.report().states.last, [.failed, .cancelled].contains(last) else {
                    throw refusal
                }
                return .underWay
            }
        }
        return .underWay
    }

    /// The outcome of ``begin(at:)``.
    package enum Beginning: Sendable, Hashable {
        /// A migration is under way, or has just failed.
        case underWay
        /// The workload had moved to the destination before, and nothing was done.
        case completedBefore
    }

    /// How far a migration between the two agents has come.
    private enum Stage {
        case notBegun, begun, switchedOver, completed
    }

    private func progress(from here: AgentReport) async throws -> Stage {
        let there = try await destination.progress()
        guard here.instance != there.instance else {
            let reason = "\(source.address) and \(destination.address) lead to the same agent; name two"
            throw AgentFailure(agent: source.address, command: "migrate", reason: reason)
        }
        guard here.source != nil, let state = here.states.last,
            ![MigrationState.none, .failed, .cancelled].contains(state)
        else {
            if here.source == nil, there.source != nil, here.migration == there.migration,
                here.states.last != .completed || there.states.last != .completed
            {
                throw arriving(there)
            }
            return .notBegun
        }
        if state == .setup || state == .active {
            // The destination may not know of the migration yet.
            let wanted = here.source?.destination
            guard wanted == nil || wanted == there.instance, there.migration == nil || there.migration == here.migration
            else { throw elsewhere(here) }
            return .begun
        }
        guard there.migration == here.migration else {
            throw [.postcopyPaused, .postcopyRecoverSetup, .postcopyRecover].contains(state)
                ? isNotPeer(here) : elsewhere(here)
        }
        return state == .completed ? .completed : .switchedOver
    }

    /// The refusal to move a workload back that is still on its way to `source`.
    private func arriving(_ there: AgentReport) -> AgentFailure {
        if let last = there.states.last, last == .failed || last == .cancelled {
            // An operator has said that this agent, or the workload here, is gone.
            let reason =
                "\(source.address) and \(destination.address) know of a migration that is \(last.rawValue) at "
                + "\(destination.address) and not at \(source.address); move the workload to another agent, or start "
                + "\(destination.address) again"
            return AgentFailure(agent: source.address, command: "migrate", reason: reason)
        }
        let remedy =
            there.states.last == .postcopyPaused
            ? "its migration is paused: pageferry recover --source \(destination.address) --uri tcp:HOST:PORT"
            : "wait until pageferry status \(destination.address) shows completed, or pageferry cancel "
                + "\(destination.address) if it has not started at \(source.address)"
        let reason = "the workload is on its way from \(destination.address) to \(source.address); \(remedy)"
        return AgentFailure(agent: source.address, command: "migrate", reason: reason)
    }

    /// The refusal of a destination other than that of a paused migration; the right one may have been restarted.
    private func isNotPeer(_ here: AgentReport) -> AgentFailure {
        let address = here.source?.address.map { " to \($0)" } ?? ""
        let reason =
            "the workload's migration\(address) is paused, and the agent at \(destination.address) is not its destination; "
            + "if the destination was restarted or is gone for good: \(Advice.ifDestinationIsGone(source.address, here))"
        return AgentFailure(agent: source.address, command: "migrate", reason: reason)
    }

    private func elsewhere(_ here: AgentReport) -> AgentFailure {
        let verb = here.states.last == .completed ? "has moved" : "moves"
        let address = here.source?.address.map { " to \($0)," } ?? ""
        let reason =
            "the workload \(verb)\(address) to another destination than \(destination.address); pageferry status shows "
            + "which agent has the workload: give that one as --source"
        return AgentFailure(agent: source.address, command: "migrate", reason: reason)
    }

    /// Sets the capabilities that the migration needs at both agents, since another client may have switched them off,
    /// and the parameters that the operator has named.
    private func askForSettings() async throws {
        let wanted: [JSONValue] = [
            ["capability": "events", "state": true], ["capability": "postcopy-ram", "state": true],
            // This client never sends migrate-continue.
            ["capability": "pause-before-switchover", "state": false],
        ]
        for agent in [source, destination] {
            try await agent.execute("migrate-set-capabilities", ["capabilities": .array(wanted)])
        }
        if let compression {
            try await source.execute("migrate-set-parameters", ["multifd-compression": .string(compression.rawValue)])
        }
    }

    private func migrate(at uri: SocketAddress?) async throws {
        do {
            try await askForMove(at: uri)
        } catch let refusal as AgentFailure {
            let there: AgentReport
            do {
                there = try await destination.report()
            } catch {
                // Without a report there is no advice, and the refusal is thrown as it is.
                throw refusal
            }
            throw await Advice.added(to: refusal, of: source) { address, here in
                Advice.onMigrate(from: (address, here), to: (destination.address, there))
            }
        }
    }

    private func askForMove(at uri: SocketAddress?) async throws {
        var listening = try await destination.listeningAddress()
        if uri == nil { try await requireReachable(listening) }
        if listening == nil || uri.map({ $0.description != listening }) == true {
            // A destination that listens at an address of an earlier attempt moves to the new address. A destination
            // that listens at an address chosen by its operator stays there.
            let wanted = uri?.description ?? "tcp:127.0.0.1:0"
            try await destination.execute(
                "migrate-incoming",
                ["uri": .string(wanted), "exit-on-error": false, "pageferry-provisional": true]
            )
            listening = try await destination.listeningAddress()
        }
        guard let address = uri?.description ?? listening else {
            throw AgentFailure(
                agent: destination.address,
                command: "query-migrate",
                reason: "the destination does not report where it listens; give its address as --uri"
            )
        }
        // The address may lead to another agent, so the source compares the instance id of the agent that answers.
        let wanted = try await destination.report().instance
        try await source.execute("migrate", ["uri": .string(address), "pageferry-destination": .string(wanted)])
    }

    /// Returns the address at which the destination listens, if the source has dialed another one and failed.
    ///
    /// Nil if the migration has not failed, if it had reached the destination, or if the addresses are the same.
    ///
    /// - Throws: an error if an agent does not report, or the address is invalid.
    package func listeningElsewhere(than uri: SocketAddress) async throws -> SocketAddress? {
        let here = try await source.report()
        guard here.states.last == .failed, !here.states.contains(.active),
            let text = try await destination.listeningAddress()
        else { return nil }
        let listening = try SocketAddress(text)
        guard listening != uri, !(listening.isEveryAddress && listening.sharesPort(with: uri)) else { return nil }
        return listening
    }

    /// Waits until the destination has accepted the migration.
    ///
    /// - Throws: ``AgentFailure`` with the reason if the migration has ended instead, or `QMPConnectionError`.
    package func accepted() async throws {
        while true {
            let report = try await source.progress()
            switch report.states.last {
            case .setup: try await Task.sleep(for: .milliseconds(20))
            case .failed, .cancelled:
                let reason = report.error ?? "the migration has ended"
                throw AgentFailure(agent: source.address, command: "migrate", reason: reason)
            default: return
            }
        }
    }

    /// Throws if the source would dial its own host at the destination's address.
    ///
    /// Refused are the address that means every address of a host and, for a source on another host, a loopback
    /// address. If `listening` is nil, the destination does not listen yet, and would listen at a loopback address.
    private func requireReachable(_ listening: String?) async throws {
        func refuse(_ reason: String, port: UInt16? = nil) -> AgentFailure {
            let uri = "--uri tcp:HOST:" + (port.map { "\($0)" } ?? "PORT")
            return AgentFailure(agent: destination.address, command: "migrate", reason: "\(reason): \(uri)")
        }
        let place = try listening.map { try SocketAddress($0) }
        if let place, case .tcp(_, let port) = place, place.isEveryAddress {
            let reason =
                "the destination listens at every address of its host, \(place); name one that the source reaches"
            throw refuse(reason, port: port)
        }
        guard place?.isLocal != false else { return }
        let (here, there) = (try await source.report().network, try await destination.report().network)
        guard let here, let there, here != there else { return }
        guard let place else {
            throw refuse(
                "the destination does not listen, and is on another host; name an address that the source reaches"
            )
        }
        throw refuse(
            "the destination listens at \(place), which only its own host reaches; start it with --listen HOST:PORT, or "
                + "give the source's end of a tunnel"
        )
    }

    /// Returns the present reports of both sides.
    ///
    /// - Throws: an error with the reason if a side that has not exited does not report.
    package func sides() async throws -> Sides {
        Sides(source: try await source.progressUnlessEnded(), destination: try await destination.progressUnlessEnded())
    }

    /// A change of the migration that an operator should know of.
    package enum Notice: Sendable, Hashable {
        /// The link broke for this reason; the agents make a new link, or the run lease decides who runs.
        case paused(reason: String)
        /// Pages move again.
        case resumed
        /// The workload starts on `cont` at the destination.
        case awaitsCont
        /// The destination has refused the start, and the source waits for another `cont` at the destination.
        case startRefused(reason: String)
        /// An agent has not answered for 5 s, and its answer is waited for.
        case silent(SocketAddress)
    }

    /// How long an agent may take to answer before an operator hears of that.
    private static let answerTime = Duration.seconds(5)

    /// Returns the present reports of both sides, and tells which agent is slow to answer.
    private func sides(telling tell: @escaping @Sendable (Notice) -> Void) async throws -> Sides {
        @Sendable func report(of agent: AgentClient) async throws -> AgentReport? {
            let watch = Task {
                try await Task.sleep(for: Migration.answerTime)
                tell(.silent(agent.address))
            }
            defer { watch.cancel() }
            return try await agent.progressUnlessEnded()
        }
        async let here = report(of: source)
        async let there = report(of: destination)
        return Sides(source: try await here, destination: try await there)
    }

    /// Waits until the migration has ended on both sides, or one side is gone, and returns the reports.
    ///
    /// A pause does not count as the end as long as an agent tries to end it. This consumes the events of both agents.
    ///
    /// - Parameter tell: called with each change that an operator should know of.
    /// - Throws: an error if an agent does not report, or the source no longer knows of a migration.
    package func end(telling tell: @escaping @Sendable (Notice) -> Void = { _ in }) async throws -> Sides {
        let (changes, change) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        return try await withThrowingTaskGroup(of: Void.self) { group in
            for agent in [source, destination] {
                group.addTask {
                    for await _ in agent.events { change.yield() }
                    change.yield()
                }
            }
            group.addTask {
                // A source that stops redialing does not change its state, so no event reports that.
                while true {
                    try await Task.sleep(for: .seconds(1))
                    change.yield()
                }
            }
            defer { group.cancelAll() }
            change.yield()
            var seen = Sides()
            var (told, last): (Notice?, Notice?) = (nil, nil)
            for await _ in changes {
                var sides = try await sides(telling: tell)
                guard sides.source?.states.last != MigrationState.none else {
                    throw AgentFailure(
                        agent: source.address,
                        command: "pageferry-report",
                        reason: "the agent knows of no migration any more; see pageferry status of both agents"
                    )
                }
                if sides.hasEnded, sides.isPaused, told == nil {
                    // A side that has lost the other may reconnect, or learn from the run lease who runs. It may also end
                    // meanwhile, and is then reported as it was last seen.
                    seen = sides.remembering(seen)
                    try await Task.sleep(for: Migration.patience)
                    sides = try await self.sides()
                }
                if sides.hasEnded, !(sides.isPaused && sides.mayRecover) { return sides.remembering(seen) }
                let notice = sides.notice
                defer { last = notice }
                // A refused start lasts only until the next message, unless the source waits. It is reported if it is
                // seen twice.
                if case .startRefused = notice, notice != last { continue }
                if notice != told {
                    if let notice { tell(notice) } else if case .paused = told { tell(.resumed) }
                    told = notice
                }
                seen = sides.remembering(seen)
            }
            throw CancellationError()
        }
    }
}

extension Migration.Sides {
    /// Whether a pause may end without an operator.
    ///
    /// The source must redial a destination that answers, or ask the run lease.
    fileprivate var mayRecover: Bool {
        switch source?.source?.search {
        case .lease: true
        case .destination: destination != nil
        case nil: false
        }
    }

    fileprivate var notice: Migration.Notice? {
        if hasEnded, isPaused { return .paused(reason: source?.error ?? destination?.error ?? "the link broke") }
        if destination?.destination?.awaitsCont == true { return .awaitsCont }
        if source?.states.last == .postcopyActive, destination?.states.last == .postcopyDevice,
            let reason = destination?.error
        {
            return .startRefused(reason: reason)
        }
        return nil
    }

    /// Returns the agent that has the workload with all of its pages; nil if no agent that answers does.
    ///
    /// If pages are missing and no longer arrive, the workload can neither be stopped nor checked.
    package func holder(of migration: Migration) -> AgentClient? {
        // A workload that has ended by itself on the destination can still be checked.
        if destination?.holdsWorkload == true, destination?.states.last == .completed { return migration.destination }
        if source?.runsHere == true { return migration.source }
        return nil
    }
}

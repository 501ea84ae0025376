package import Compression
import Exposition
package import Guest
import Identity
package import LinuxSystem
package import Logging
package import PageFetcher
import PageProtocol
package import QMP
package import RunLease
package import Switchover
import Telemetry

/// An agent: holds a workload or waits for one, moves the workload, and obeys QMP commands.
package actor Agent: QMPHandler {
    /// The settings of an agent.
    package struct Configuration: Sendable {
        /// Whether the source pushes pages that the destination has not requested.
        package var pushes = true
        /// The number of connections of a source's push, 1 to 64, until `multifd-channels` is set; nil to choose it by
        /// the link.
        package var pushLanes: Int?
        /// Upper bound on the push of a source, in bytes per second, until `max-postcopy-bandwidth` is set.
        ///
        /// 0 sets no bound.
        package var maxPostcopyBandwidth = 0
        /// How a source compresses the pages that it pushes, until `multifd-compression` is set.
        package var compression = PushCompression.none
        /// Whether a source returns memory to its host as it is sent, until the capability `release-ram` is set.
        package var releasesMemory = false
        /// What a source does when the destination cannot start the workload.
        package var afterStartRefusal = StartRefusalPolicy.takeBack
        /// The store of the workload's run lease, and the workload's name in that store; nil without a lease.
        package var lease: (store: any RunLeaseStore, workload: String)?
        /// The longest time that a peer may be silent before its connection counts as broken.
        package var peerTimeout = Duration.seconds(5)
        /// How long the agent redials a lost peer, or waits for that peer to reconnect, before an operator must act.
        ///
        /// 0 disables redialing.
        package var recoveryTime = Duration.seconds(300)
        /// How long an exiting source waits for the destination to confirm that the workload was taken back.
        ///
        /// Equal to the time that a destination has to undo a start.
        package var wordTime = Duration.seconds(60)
        /// Which pages a destination requests before they are touched.
        package var prefetch = Prefetch.streams()
        /// The number of fault threads of a destination, each with a connection of its own; 1 to 16.
        package var faultThreads = 1
        /// The longest time that a thread which requests or answers pages polls before it sleeps; zero to never poll.
        package var polling = PollBudget.usualLimit
        /// Whether pages are counted by their place, as the map of a live page shows them.
        package var countsPlaces = false
        /// Whether an arriving workload waits for `cont`.
        package var startsStopped = false
        /// Whether the agent may listen at an address that other hosts can reach.
        package var isInsecure = false
        /// The clock that time limits go by, except those of connections and of the run lease.
        package var clock: any Clock<Duration> = SuspendingClock()
        /// Why an agent without a landing accepts no workload, and what to do about that.
        package var arrivalRefusal = "this agent was started to take no workload"

        /// Makes the settings of an agent that pushes, starts an arriving workload, and listens on this host only.
        package init() {}
    }

    /// Why the agent's process should exit.
    package enum Outcome: Sendable, Hashable {
        /// A client sent `quit`, or the process was asked to exit.
        case quit
        /// An incoming migration failed, or the workload that moved away was lost; the reason says which.
        case failed(reason: String)
    }

    let configuration: Configuration
    let logger: Logger
    let instance = InstanceID.random()
    let sink = EventSink()
    let landing: (any Landing)?
    let lease: WorkloadLease?
    /// The workload that the agent was started with, or an arrived one that `migrate` moves on.
    ///
    /// Still set after the workload has moved away, until another one may arrive.
    var ownWorkload: (any Workload)?
    var regions: [SourceRegion]
    /// Why `ownWorkload` has ended by itself; nil if it has not.
    var endReason: String?
    /// The parameters that differ from their initial values, because the configuration or a client has set them.
    var parameters: [MigrationParameter: JSONValue]
    /// The capabilities that clients have set, for migrations that begin later.
    var capabilities: [MigrationCapability: Bool]
    var outgoing: SourceSession?
    var incoming: DestinationSession?
    /// Former values of `incoming` that may still have to answer their sources, or wait for the lease's store.
    var earlier: [DestinationSession] = []
    /// Former values of `outgoing` that may still have to tell their destinations that the workload was taken back.
    var earlierSources: [SourceSession] = []
    let formers = FormerMigrations()
    /// The rates of the connections for pages.
    var rates = RateMeter<LaneBytes.Lane.Name>()
    let waiting = WaitingCommands()
    /// The session that accepts sources after the migration of `incoming` has failed.
    ///
    /// Once a source is accepted, this session replaces `incoming`.
    var successor: DestinationSession?
    /// Whether the agent has tried to start its own workload; until then, no command may start or move the workload.
    private(set) var hasBegun: Bool
    /// Whether the operator has chosen an address by `--listen`, so that the agent waits on after each failed arrival.
    var waitsOn = false
    var isQuitting = false
    /// Whether `quit` was received: nothing starts here any more, and the agent exits soon.
    var isQuitUnderWay = false
    /// Whether the workload was stopped for the last time: nothing starts here any more.
    var hasEnded = false
    /// The name of the operation that is starting, stopping or checking the workload; nil if there is none.
    var underWay: String?
    /// Commands that wait for the operation `underWay` to end.
    var queue: [CheckedContinuation<Void, Never>] = []
    private let outcomes: AsyncStream<Outcome>
    let ending: AsyncStream<Outcome>.Continuation

    /// Makes an agent.
    ///
    /// - Parameters:
    ///   - workload: the workload that this agent can move away, with its memory; nil for an agent that waits for one.
    ///   - landing: prepares memory for an arriving workload; nil if none may arrive.
    ///   - configuration: the agent's settings.
    ///   - logger: receives the log of the agent and its sessions.
    package init(
        workload: (workload: any Workload, regions: [SourceRegion])?,
        landing: (any Landing)?,
        configuration: Configuration = Configuration(),
        logger: Logger
    ) {
        LargeAllocations.returnWhenFreed()
        ownWorkload = workload?.workload
        regions = workload?.regions ?? []
        self.landing = landing
        lease = configuration.lease.map { [instance] in
            WorkloadLease(store: $0.store, workload: $0.workload, instance: instance.description)
        }
        self.configuration = configuration
        hasBegun = workload == nil
        parameters = [
            .maxPostcopyBandwidth: JSONValue(configuration.maxPostcopyBandwidth),
            .multifdCompression: .string(configuration.compression.rawValue),
        ]
        if let lanes = configuration.pushLanes { parameters[.multifdChannels] = JSONValue(lanes) }
        capabilities = [.releaseRAM: configuration.releasesMemory]
        self.logger = logger
        (outcomes, ending) = AsyncStream.makeStream(of: Outcome.self)
    }

    /// Sets the receiver of the agent's events, usually the clients of a QMP server.
    ///
    /// Events sent before this call are lost.
    package nonisolated func setEventSink(_ sink: @escaping @Sendable (QMPEvent) -> Void) {
        self.sink.set(sink)
    }

    /// Takes the workload's devices and its run lease, and starts the agent's own workload, if there is one.
    ///
    /// - Throws: why the workload does not run. The agent then has no workload any more.
    package func startWorkload() async throws {
        guard let workload = ownWorkload else { return }
        watchEnd(of: workload)
        // Control sockets may be open already: commands that arrive during the start wait or are refused.
        try await exclusively("the start") {
            defer { hasBegun = true }
            do {
                try await onThread("start") { [lease, logger] in
                    // The devices' locks come first: if a lock is refused, no lease record has been written.
                    try workload.devices.acquire()
                    do {
                        _ = try lease?.begin(isStart: true)
                        try Agent.run(workload, lease, logger)
                    } catch {
                        do throws(DeviceError) {
                            try workload.devices.release()
                        } catch let undo {
                            logger.error("cannot release the workload's devices after the failed start: \(undo)")
                        }
                        throw error
                    }
                }
            } catch {
                // Without its lease and its locks, the workload must not be started by any later command.
                ownWorkload = nil
                regions = []
                throw error
            }
        }
    }

    /// Runs a workload whose lease was taken; if that fails, releases the lease, so that no record claims that it runs.
    private static func run(_ workload: any Workload, _ lease: WorkloadLease?, _ logger: Logger) throws {
        do {
            try WorkloadStart.inPlace(workload)
        } catch {
            do {
                // A microVM that ran before its agent attached continues to run, and keeps the lease. So does a process
                // that has hung up.
                if !workload.activity.isRunning, workload.endsWithAgent || workload.isGone {
                    try lease?.release(forGood: false)
                }
            } catch {
                logger.error("\(error)")
            }
            throw error
        }
    }

    /// Subscribes to the unexpected end of the agent's own workload.
    func watchEnd(of workload: any Workload) {
        workload.onEnd { [weak self, weak workload] reason in
            guard let self, let workload else { return }
            Task { await self.workloadEnded(workload, reason) }
        }
    }

    private func workloadEnded(_ workload: any Workload, _ reason: String) async {
        let leaving = outgoing
        guard workload === ownWorkload, await leaving?.noteWorkloadEnd(reason) ?? true else {
            return logger.notice("the workload has moved away, and its process here is gone: \(reason)")
        }
        // Another workload may have arrived during the `await`.
        if workload === ownWorkload { endReason = reason }
        logger.error("the workload has ended: \(reason)")
        sink.sendWorkloadEnd()
    }

    /// Whether a migration still needs this agent: one is under way, or pages are missing on either side.
    package var isNeeded: Bool {
        get async {
            if let outgoing, await outgoing.isNeeded { return true }
            for session in earlierSources where await session.isNeeded { return true }
            for session in earlier where await session.isNeeded { return true }
            await promoteSuccessor()
            return await incoming?.isNeeded ?? false
        }
    }

    /// Why a migration still needs this agent, and when it exits; nil if none does.
    package var need: String? {
        get async {
            guard await isNeeded else { return nil }
            if let outgoing, await outgoing.snapshot().isHeld {
                return
                    "the workload could not be resumed here, and would be lost; run cont, after which this agent exits"
            }
            return "a migration needs this agent, which exits when the migration has ended"
        }
    }

    /// Makes ``outcome()`` return, so that the process exits.
    package nonisolated func quit() {
        ending.yield(.quit)
    }

    /// Makes ``outcome()`` return once no migration needs the agent and every peer has its last message.
    package func quitWhenUnneeded() async {
        // `quit` is already sending the last messages; that command then ends the agent.
        guard !isQuitUnderWay else { return }
        while !isQuitting {
            await promoteSuccessor()
            let (leaving, coming) = (outgoing, incoming)
            await leaving?.waitUntilUnneeded()
            for session in earlierSources { await session.waitUntilUnneeded() }
            await coming?.leave("the agent is exiting", isPatient: true)
            for session in earlier { await session.leave("the agent is exiting", isPatient: true) }
            // Another migration may have begun during the waits above, or may be about to begin. Once `isQuitting` is
            // set, none can.
            if underWay != nil {
                await withCheckedContinuation { queue.append($0) }
            } else if leaving === outgoing, coming === incoming {
                isQuitting = true
            }
        }
        // The session reports a lost workload too, but perhaps later than this.
        ending.yield(await loss ?? .quit)
    }

    /// The outcome of an agent whose workload was lost in its migration; nil if none was.
    var loss: Outcome? {
        get async {
            if let reason = await incoming?.loss { return .failed(reason: Agent.incoming(failed: reason)) }
            return await outgoing?.loss.map { .failed(reason: "the migration failed: \($0)") }
        }
    }

    /// The reason of an agent that exits because an incoming migration has failed.
    static func incoming(failed reason: String) -> String { "the incoming migration failed: \(reason)" }

    /// Waits until the process should exit.
    package func outcome() async -> Outcome {
        for await outcome in outcomes { return outcome }
        return .quit
    }

    /// The workload that is, or was, in this process: the arrived one if there is one, else the agent's own.
    var workload: (any Workload)? {
        get async {
            if let incoming, let arrived = await incoming.workload { return arrived }
            return ownWorkload
        }
    }

    /// Why the workload that was started here, and has not moved away since, has ended by itself; nil if it has not.
    var workloadEnd: String? {
        get async {
            guard let incoming else { return endReason }
            return await incoming.snapshot().hasStarted ? await incoming.course.endReason : nil
        }
    }

    /// Why a client cannot start or stop the workload during a migration, and what to do instead.
    private func underWay(_ snapshot: SourceSession.Status) -> String {
        let remedy =
            switch snapshot.state {
            case .setup, .active:
                "the workload must stay as it was when the migration began; run migrate_cancel first, or wait until the "
                    + "workload is at \(snapshot.destination) and send the command there"
            case .preSwitchover, .device, .postcopyDevice:
                "the workload is stopped for its switchover to \(snapshot.destination); migrate_cancel takes it back"
            case .none, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup, .postcopyRecover, .cancelling,
                .cancelled, .completed, .failed:
                "the workload may run at \(snapshot.destination); send the command there"
            }
        return "a migration is under way: \(snapshot.state.rawValue); \(remedy)"
    }

    /// The workload if a client may start and stop it here now, or the reason why not.
    func ownership() async -> Result<any Workload, CommandRefused> {
        guard !hasEnded else { return .failure(CommandRefused(reason: "this agent is exiting")) }
        guard hasBegun else { return .failure(CommandRefused(reason: "this agent has not started its workload yet")) }
        if let incoming {
            let snapshot = await incoming.snapshot()
            guard snapshot.hasStarted, let workload = await incoming.workload else {
                return .failure(
                    CommandRefused(
                        reason: "the workload has not started here yet; run cont first, which waits until it runs"
                    )
                )
            }
            return .success(workload)
        }
        guard let ownWorkload else {
            return .failure(
                CommandRefused(reason: "there is no workload here; send the command to the agent that has it")
            )
        }
        guard let outgoing else { return .success(ownWorkload) }
        let snapshot = await outgoing.snapshot()
        switch snapshot.state {
        case .failed, .cancelled:
            return snapshot.isWorkloadHere
                ? .success(ownWorkload)
                : .failure(CommandRefused(reason: snapshot.failureReason ?? "the workload stays stopped"))
        case .completed:
            return .failure(
                CommandRefused(
                    reason: "the workload has moved to \(snapshot.destination) and runs there; send the command to the "
                        + "agent there"
                )
            )
        case .none, .setup, .active, .preSwitchover, .device, .postcopyDevice, .postcopyActive, .postcopyPaused,
            .postcopyRecoverSetup, .postcopyRecover, .cancelling:
            return .failure(CommandRefused(reason: underWay(snapshot)))
        }
    }
}

/// Waits for a time, in a task that is never cancelled.
func rest(for duration: Duration) async {
    // `sleep` fails only if its task is cancelled.
    try? await Task.sleep(for: duration)
}

/// Runs blocking work on a new thread, and waits for the result without blocking a thread of the concurrency pool.
func onThread<Value: Sendable>(_ name: String, _ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    let group = ThreadGroup()
    defer { group.join() }
    return try await withCheckedThrowingContinuation { continuation in
        do throws(SystemError) {
            try group.run(name) { continuation.resume(with: Result(catching: body)) }
        } catch {
            continuation.resume(throwing: error)
        }
    }
}

extension ThreadGroup {
    /// Waits for the group's threads without blocking a thread of the concurrency pool.
    func joined() async {
        do {
            try await onThread("join") { self.join() }
        } catch {
            // No thread could be started for the wait, so this thread waits.
            join()
        }
    }
}

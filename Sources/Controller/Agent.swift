public import DestinationAgent
public import Guest
public import LinuxSystem
public import Logging
import PageProtocol
public import QMP
public import RunLease
public import Switchover

/// One agent: holds a workload or waits for one, moves it, and is controlled by QMP.
public actor Agent: QMPHandler {
    /// How an agent behaves.
    public struct Configuration: Sendable {
        /// Whether the source pushes pages that nobody has asked for.
        public var pushes = true
        /// Bytes of pages that a source pushes in a second, until `max-postcopy-bandwidth` is set; 0 is as many as the
        /// network takes.
        public var maxPostcopyBandwidth = 0
        /// Whether a source gives memory back to its host as it is sent, until the capability `release-ram` is set.
        public var releasesMemory = false
        /// What a source does when the destination cannot start the workload.
        public var afterStartRefusal = StartRefusalPolicy.takeBack
        /// Where the run lease of the workload is kept, and the workload's name there; nil for none.
        public var lease: (store: any RunLeaseStore, workload: String)?
        /// The longest time that a peer may be silent before its connection counts as broken.
        public var peerTimeout = Duration.seconds(5)
        /// How long a peer is looked for, without being asked, when the connection has broken; 0 for not at all.
        public var recoveryTime = Duration.seconds(300)
        /// Which pages a destination asks for before they are touched.
        public var prefetch = Prefetch.streams()
        /// How many threads of a destination serve faults, each over a connection of its own; 1 to 16.
        public var faultThreads = 1
        /// Whether an arriving workload waits for `cont`.
        public var startsStopped = false
        /// Whether the agent may listen where others than this host can reach it.
        public var isInsecure = false
        /// Why an agent without a landing takes no workload, and what to do.
        public var arrivalRefusal = "this agent was started to take no workload"

        /// An agent that pushes, starts what arrives, and listens on this host only.
        public init() {}
    }

    /// Why the agent's process should end.
    public enum Outcome: Sendable, Hashable {
        /// `quit` was asked for.
        case quit
        /// An incoming migration failed.
        case failed(reason: String)
    }

    let configuration: Configuration
    let logger: Logger
    let instance = PageProtocol.InstanceID.random()
    let sink = EventSink()
    let landing: (any Landing)?
    let lease: WorkloadLease?
    /// The workload that this process was started with, or that has come and may go again, with its memory.
    var ownWorkload: (any Workload)?
    var regions: [MemoryRegion]
    /// Why that workload has ended by itself; nil while it has not.
    var endReason: String?
    /// Those that were set.
    var parameters: [MigrationParameter: Int]
    /// Whether the next migration gives memory back as it is sent.
    var releasesMemory: Bool
    var outgoing: SourceSession?
    var incoming: DestinationSession?
    /// Sessions that were `incoming`, and may still have to answer their sources or wait for their store.
    var earlier: [DestinationSession] = []
    /// Sessions that were `outgoing`, and may still owe their destinations a word.
    var earlierSources: [SourceSession] = []
    let formers = FormerMigrations()
    /// Takes sources in where `incoming` did, whose migration has failed; takes its place when a source was taken.
    var successor: DestinationSession?
    /// Whether the start of the agent's own workload was tried: before that, nobody else starts or moves it.
    private(set) var hasBegun: Bool
    var isQuitting = false
    /// `quit` lets nothing start any more, and then ends the agent.
    var isQuitUnderWay = false
    /// Whether the workload was stopped for good: nothing starts here any more.
    var hasEnded = false
    /// The command that is just starting, stopping or checking the workload.
    var underWay: String?
    /// Commands that wait for that one to end.
    var queue: [CheckedContinuation<Void, Never>] = []
    private let outcomes: AsyncStream<Outcome>
    let ending: AsyncStream<Outcome>.Continuation

    /// Makes an agent.
    ///
    /// - Parameters:
    ///   - workload: what it can move away, with its memory; nil for an agent that only waits for one.
    ///   - landing: where a workload can arrive; nil where none may.
    public init(
        workload: (workload: any Workload, regions: [MemoryRegion])?,
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
        parameters = [.maxPostcopyBandwidth: configuration.maxPostcopyBandwidth]
        releasesMemory = configuration.releasesMemory
        self.logger = logger
        (outcomes, ending) = AsyncStream.makeStream(of: Outcome.self)
    }

    /// Says where events go, usually to a QMP server's clients. Events before are lost.
    public nonisolated func setEventSink(_ sink: @escaping @Sendable (String, [String: JSONValue]) -> Void) {
        self.sink.set(sink)
    }

    /// Lets the agent's own workload begin to run.
    ///
    /// - Throws: why it does not run.
    public func startWorkload() async throws {
        guard let workload = ownWorkload else { return }
        watchEnd(of: workload)
        // The control sockets may be there already: what is asked for meanwhile waits, or is refused.
        try await exclusively("the start") {
            defer { hasBegun = true }
            do {
                try await onThread("start") { [lease, logger] in
                    // The locks come first: a start that they refuse has written no record.
                    try workload.devices.acquire()
                    do {
                        _ = try lease?.begin()
                        try Agent.run(workload, lease, logger)
                    } catch {
                        do throws(DeviceError) {
                            try workload.devices.release()
                        } catch let undo {
                            logger.error("cannot give back what the workload held: \(undo)")
                        }
                        throw error
                    }
                }
            } catch {
                // Without its lease and locks nobody is to start it.
                ownWorkload = nil
                regions = []
                throw error
            }
        }
    }

    /// Runs a workload whose lease was taken; if that fails, no record claims that it runs.
    private static func run(_ workload: any Workload, _ lease: WorkloadLease?, _ logger: Logger) throws {
        do {
            try WorkloadStart.inPlace(workload)
        } catch {
            do {
                // A microVM that was there before its agent runs on.
                if !workload.activity.isRunning { try lease?.release(forGood: false) }
            } catch {
                logger.error("\(error)")
            }
            throw error
        }
    }

    /// Has the end of the agent's own workload told.
    func watchEnd(of workload: any Workload) {
        workload.onEnd { [weak self, weak workload] reason in
            guard let self, let workload else { return }
            Task { await self.workloadEnded(workload, reason) }
        }
    }

    private func workloadEnded(_ workload: any Workload, _ reason: String) async {
        let leaving = outgoing
        guard workload === ownWorkload, await leaving?.noteWorkloadEnd(reason) ?? true else {
            return logger.notice("what has moved away has ended here: \(reason)")
        }
        // Another may have come meanwhile.
        if workload === ownWorkload { endReason = reason }
        logger.error("the workload has ended: \(reason)")
        sink.sendWorkloadEnd()
    }

    /// Whether a migration needs this agent still: it is under way, or pages are missing elsewhere or here.
    public var isNeeded: Bool {
        get async {
            if let outgoing, await outgoing.isNeeded { return true }
            for session in earlierSources where await session.isNeeded { return true }
            for session in earlier where await session.isNeeded { return true }
            await promoteSuccessor()
            return await incoming?.isNeeded ?? false
        }
    }

    /// Lets ``outcome()`` return: the process should end.
    public nonisolated func quit() {
        ending.yield(.quit)
    }

    /// Lets ``outcome()`` return once no migration needs the agent: none is under way, and all has been said.
    public func quitWhenUnneeded() async {
        // The client that asked for `quit` waits for the last words; that command ends the agent.
        guard !isQuitUnderWay else { return }
        while !isQuitting {
            await promoteSuccessor()
            let (leaving, coming) = (outgoing, incoming)
            await leaving?.waitUntilUnneeded()
            for session in earlierSources { await session.waitUntilUnneeded() }
            await coming?.leaveWhenUnneeded("the agent ends")
            for session in earlier { await session.leaveWhenUnneeded("the agent ends") }
            // Another migration may have begun meanwhile, or be about to. From here on none does.
            if underWay != nil {
                await withCheckedContinuation { queue.append($0) }
            } else if leaving === outgoing, coming === incoming {
                isQuitting = true
            }
        }
        quit()
    }

    /// Waits until the process should end.
    public func outcome() async -> Outcome {
        for await outcome in outcomes { return outcome }
        return .quit
    }

    /// The workload that is, or was, in this process.
    var workload: (any Workload)? {
        get async {
            if let incoming, let arrived = await incoming.workload { return arrived }
            return ownWorkload
        }
    }

    /// Why the workload that was started here, and not given away since, has ended by itself; nil while it has not.
    var workloadEnd: String? {
        get async {
            guard let incoming else { return endReason }
            return await incoming.snapshot().hasStarted ? await incoming.endReason : nil
        }
    }

    /// Whether the workload in this process is this process's to start and stop now, or why not.
    func ownership() async -> Result<any Workload, CommandRefused> {
        guard !hasEnded else { return .failure(CommandRefused(reason: "this agent ends")) }
        guard hasBegun else { return .failure(CommandRefused(reason: "this agent has not started its workload yet")) }
        if let incoming {
            let snapshot = await incoming.snapshot()
            guard snapshot.hasStarted, let workload = await incoming.workload else {
                return .failure(CommandRefused(reason: "the workload has not started here yet"))
            }
            return .success(workload)
        }
        guard let ownWorkload else { return .failure(CommandRefused(reason: "there is no workload here")) }
        guard let outgoing else { return .success(ownWorkload) }
        let snapshot = await outgoing.snapshot()
        switch snapshot.state {
        case .failed, .cancelled:
            return snapshot.isWorkloadHere
                ? .success(ownWorkload)
                : .failure(CommandRefused(reason: snapshot.failureReason ?? "the workload stays stopped"))
        case .completed:
            return .failure(CommandRefused(reason: "the workload has moved to \(snapshot.destination) and runs there"))
        case .none, .setup, .active, .device, .postcopyDevice, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup,
            .postcopyRecover, .cancelling:
            return .failure(CommandRefused(reason: "a migration is under way: \(snapshot.state.rawValue)"))
        }
    }
}

/// Waits for a time, in a task that nobody cancels.
func rest(for duration: Duration) async {
    // Only the cancellation fails it.
    try? await Task.sleep(for: duration)
}

/// Runs blocking work on a thread of its own, and waits for it without holding a thread of the concurrency pool.
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
    /// Waits for its threads without holding a thread of the concurrency pool.
    func joined() async {
        do {
            try await onThread("join") { self.join() }
        } catch {
            // There is no thread to wait on: this one does.
            join()
        }
    }
}

import Firecracker
package import Guest
package import LinuxSystem
package import Logging
import Synchronization
package import Telemetry

/// A Firecracker microVM that leaves as a snapshot, and arrives as a restored one, through Firecracker's API.
///
/// At a source, Firecracker copies the whole memory of the paused microVM into a memory file. The source sends the
/// pages from that file.
package final class MicroVM: Workload {
    /// The description of the microVM's memory and of the Firecracker release that it runs in.
    package let description: GuestDescription
    /// One device, `vmstate`: Firecracker's state file, which is everything but the memory.
    package let devices: DeviceSet

    private let host: FirecrackerHost
    private let image: SnapshotImage
    private let state: MicroVMState
    private let current = Current()
    /// Whether the microVM arrives here and has not run here yet.
    private let isNew: Atomic<Bool>

    private final class Current: Sendable {
        let activity = Mutex(WorkloadActivity())
    }

    /// Takes control of a running microVM, whose Firecracker has its API socket at `socketPath`.
    ///
    /// - Throws: ``MicroVMError`` if no microVM runs there or another agent controls it, `FirecrackerError` if the API
    ///   does not answer, `SystemError` if the kernel refuses.
    package convenience init(runningAt socketPath: String, logger: Logger) throws {
        let host = try FirecrackerHost(at: socketPath, logger: logger)
        switch try host.api.instance().state {
        case .running: break
        case .notStarted: throw MicroVMError("there is no microVM at \(socketPath); boot it first")
        case .paused:
            throw MicroVMError(
                "\(host.name) is paused, and may run on another host; if it does not, resume it through its API first"
            )
        }
        let configuration = try MicroVMConfiguration(firecracker: host.api.version(), machine: host.api.machine())
        try self.init(configuration, host)
        current.activity.withLock { $0.isRunning = true }
        try host.watchEnd()
    }

    /// Makes a microVM that does not run.
    ///
    /// - Parameter onMemory: receives the memory of an arriving microVM while its state loads; nil for a microVM that
    ///   is already here.
    init(
        _ configuration: MicroVMConfiguration,
        _ host: FirecrackerHost,
        onMemory: MicroVMState.OnMemory? = nil
    ) throws {
        self.host = host
        description = configuration.description
        image = try SnapshotImage(of: configuration)
        state = MicroVMState(of: host, configuration, image: image, onMemory: onMemory)
        devices = DeviceSet([state])
        isNew = Atomic(onMemory != nil)
    }

    /// The memory file that Firecracker writes the snapshot's memory to.
    package var sourceMemory: [SourceRegion]? { image.regions.map { .mapped($0) } }

    /// Reserves memory for the snapshot, and arms a keeper for a microVM that runs.
    ///
    /// Until another side may start the microVM, the keeper resumes it if this process dies. A microVM that this agent
    /// has paused before stays paused.
    ///
    /// - Throws: ``MicroVMError`` if the microVM was paused or resumed through its API behind this agent's back, since
    ///   it would do the opposite at the destination, or if this host has too little memory for the snapshot.
    package func prepareToMove() throws {
        let isPaused = try host.api.instance().state != .running
        switch (activity.isRunning, isPaused) {
        case (true, true):
            throw MicroVMError(
                "\(host.name) was paused through its API, and would start running at the destination; resume it first, "
                    + "or send stop to this agent's control socket too, after which it arrives paused"
            )
        case (false, false):
            throw MicroVMError(
                "\(host.name) was resumed through its API, and would arrive paused; run cont at this agent first"
            )
        case (true, false):
            try image.reserve()
            try host.keep(.resume)
        case (false, true): try image.reserve()
        }
    }

    /// Starts the arrived microVM, or resumes the one that was stopped here.
    ///
    /// - Throws: ``MicroVMError`` or `FirecrackerError` if the microVM executed nothing.
    package func run(_ permit: consuming RunPermit) throws -> StartResult {
        if !activity.isRunning {
            try host.watchEnd()
            if isNew.load(ordering: .relaxed) { try host.start() } else { try host.resume() }
            isNew.store(false, ordering: .relaxed)
            current.activity.withLock { activity in
                activity.isRunning = !host.watched.process.hasEnded
                activity.firstOperation = MonotonicClock.now()
            }
        }
        // The microVM is no longer moving away: neither its keeper nor its snapshot is needed.
        state.noteRun()
        image.discard()
        return host.watched.process.hasEnded ? .ended(reason: "\(host.name) has ended") : .runs
    }

    /// Pauses the microVM's vCPUs.
    ///
    /// - Throws: `FirecrackerError` if Firecracker does not pause them and they were resumed; ``MicroVMError`` if they
    ///   could not be resumed either. The next start tries the resume again.
    package func stop() throws {
        guard activity.isRunning else { return }
        // The guest executes until some moment after this one.
        let before = MonotonicClock.now()
        current.activity.withLock { activity in
            activity.isRunning = false
            activity.lastOperation = before
        }
        do {
            try host.pause()
        } catch {
            // Some vCPUs may be paused. If the resume fails too, the next start is another attempt.
            do {
                try host.resume()
            } catch let stuck {
                throw MicroVMError("\(error); and the microVM cannot be resumed: \(stuck)")
            }
            current.activity.withLock { $0.isRunning = true }
            throw error
        }
    }

    /// Disarms the keeper of a complete arrival, or kills a Firecracker whose loaded microVM will not run here.
    package func settle(_ arrival: Arrival) {
        switch arrival {
        case .complete:
            host.letGo(.kill)
            // The end of a microVM that arrived paused, and never ran here, is noticed too.
            host.watchEndIfPossible()
        case .abandoned: host.abandon()
        }
    }

    /// Sets the handler for the end of the Firecracker process, replacing any earlier one.
    package func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) {
        host.watched.end.onEnd { [current] reason in
            current.activity.withLock { $0.isRunning = false }
            tell(reason)
        }
    }

    /// False: the microVM runs in Firecracker's process.
    package let endsWithAgent = false

    /// Whether the microVM runs, and when it started and stopped; a guest's operations are not counted.
    package var activity: WorkloadActivity { current.activity.withLock(\.self) }

    /// Empty: the threads are those of Firecracker's process, whose userfaultfd does not tell them apart.
    package var stalls: [LatencyRecorder] { [] }

    /// Nil, for the reason given at ``stalls``.
    package var blockedNanoseconds: UInt64? { nil }

    /// False: this process does not know what a guest writes.
    package var canVerify: Bool { false }

    /// Returns nil, for the reason given at ``canVerify``.
    package func verify() -> Verification? { nil }
}

import Firecracker
public import Guest
public import LinuxSystem
public import Logging
import Synchronization
public import Telemetry

/// A microVM of Firecracker, driven through its API: it leaves by a snapshot, and arrives by the restoring of one.
///
/// The whole memory is copied while it is stopped, into a memory file, out of which a source sends it.
public final class MicroVM: Workload {
    /// What makes it what it is.
    public let description: GuestDescription
    /// Its only device is everything but the memory: `vmstate`, Firecracker's own file.
    public let devices: DeviceSet

    private let host: FirecrackerHost
    private let image: SnapshotImage
    private let state: MicroVMState
    private let current = Current()
    /// Whether it has come, and has not run here yet.
    private let isNew: Atomic<Bool>

    /// What it does.
    private final class Current: Sendable {
        let activity = Mutex(WorkloadActivity())
    }

    /// Takes over a microVM that runs.
    ///
    /// - Parameter socketPath: Firecracker's API socket.
    /// - Throws: ``MicroVMError`` if there is none that runs, or another agent has it.
    public convenience init(runningAt socketPath: String, logger: Logger) throws {
        let host = try FirecrackerHost(at: socketPath, logger: logger)
        switch try host.api.instance().state {
        case .running: break
        case .notStarted: throw MicroVMError("there is no microVM at \(socketPath); boot it first")
        case .paused:
            throw MicroVMError(
                "\(host.name) is paused, and may run on another host; if that cannot be, resume it by its API first"
            )
        }
        let configuration = try MicroVMConfiguration(firecracker: host.api.version(), machine: host.api.machine())
        try self.init(configuration, host)
        current.activity.withLock { $0.isRunning = true }
        try host.watchEnd()
    }

    /// Makes one that is stopped, or is to come.
    ///
    /// - Parameter onMemory: of one that is to come, told of its memory while it loads.
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

    /// The snapshot's memory.
    public var ownMemory: [MemoryRegion]? { image.regions }

    /// Takes the memory that the snapshot needs, before the microVM waits for that. From now on until another side may
    /// start it, it goes on if this process ends.
    ///
    /// - Throws: if its API has paused it: where it moves to it would run.
    public func prepareToMove() throws {
        guard try host.api.instance().state == .running else {
            throw MicroVMError("\(host.name) was paused by its API, and would run where it moves to: resume it first")
        }
        try image.reserve()
        try host.keep(.resume)
    }

    /// Lets it go on; one that was not stopped here does already.
    public func run(_ permit: consuming RunPermit) throws -> StartResult {
        if !activity.isRunning {
            try host.watchEnd()
            if isNew.load(ordering: .relaxed) { try host.start() } else { try host.resume() }
            isNew.store(false, ordering: .relaxed)
            current.activity.withLock { activity in
                activity.isRunning = !host.watched.process.hasEnded
                activity.firstOperation = MonotonicClock.now()
            }
        }
        // It moves no more.
        state.noteRun()
        image.discard()
        return host.watched.process.hasEnded ? .ended(reason: "\(host.name) has ended") : .runs
    }

    /// Pauses it.
    public func stop() throws {
        guard activity.isRunning else { return }
        // It executes until some moment behind this one.
        let before = MonotonicClock.now()
        current.activity.withLock { activity in
            activity.isRunning = false
            activity.lastOperation = before
        }
        do {
            try host.pause()
        } catch {
            // Some of its processors may stand still. If this fails too, the next start is another attempt.
            try host.resume()
            current.activity.withLock { $0.isRunning = true }
            throw error
        }
    }

    /// Lets Firecracker go on without this process, or ends it: what was loaded into it is to run nowhere else.
    public func settle(_ arrival: Arrival) {
        switch arrival {
        case .complete: host.letGo(.kill)
        case .abandoned: host.abandon()
        }
    }

    /// Says whom to tell when Firecracker has ended.
    public func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) {
        host.watched.end.onEnd { [current] reason in
            current.activity.withLock { $0.isRunning = false }
            tell(reason)
        }
    }

    /// Its process is Firecracker's.
    public let endsWithAgent = false

    /// Without operations, which nobody counts.
    public var activity: WorkloadActivity { current.activity.withLock(\.self) }

    /// Unknown: the kernel waits for absent pages on behalf of the guest.
    public var stalls: [LatencyRecorder] { [] }

    /// Unknown.
    public var blockedNanoseconds: UInt64? { nil }

    /// Nobody knows what its pages should hold.
    public var canVerify: Bool { false }

    /// Nothing.
    public func verify() -> Verification? { nil }
}

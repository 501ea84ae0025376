public import Guest
public import LinuxSystem
import Synchronization
public import Telemetry

/// A workload of this package: threads that read and write pages which tell what they should hold.
public final class BuiltInWorkload: Workload {
    /// Where a workload comes from.
    public enum Origin: Hashable, Sendable {
        /// It is born here: its pages are filled.
        case new
        /// It comes from elsewhere: its memory is not touched, and its devices wait for their state. Its disks must lie in
        /// one of these folders.
        case arriving(disksIn: [AllowedFolder])

        /// Where a disk may lie; nil for anywhere.
        fileprivate var folders: [AllowedFolder]? {
            switch self {
            case .new: nil
            case .arriving(let folders): folders
            }
        }
    }

    /// What makes it what it is.
    public let configuration: WorkloadConfiguration
    /// Its memory in this process.
    public let regions: [GuestRegion]
    /// The memory that it works in.
    public var ownMemory: [MemoryRegion]? { regions.map(\.memory) }
    /// Its state beside the memory: `cpu`, `ledger`, `clock`, `serial`, then those of the configuration.
    public let devices: DeviceSet
    /// How many of the devices every workload has.
    static let ownDevices = 4

    let memory: WorkloadMemory
    let threads: [WorkloadThread]
    let clock: ClockDevice
    let console: ConsoleDevice
    private let current = Mutex<Run?>(nil)
    // Relaxed: a figure by itself.
    private let isRunning = Atomic<Bool>(false)

    /// Threads that work.
    private struct Run: Sendable {
        let signal = RunSignal()
        let threads = ThreadGroup()

        /// Ends it and waits.
        func stop() {
            signal.stop()
            threads.join()
        }
    }

    /// Makes a stopped workload in memory that is given to it.
    ///
    /// - Parameters:
    ///   - configuration: what it is to be.
    ///   - regions: memory of the shapes that the configuration makes; zeros for a new workload.
    ///   - origin: whether its pages are to be filled, which takes a while, or come from elsewhere.
    ///   - witness: who is told of each operation; nil for nobody.
    /// - Throws: ``WorkloadError`` when the configuration contradicts itself or a file does not fit;
    ///   `SystemError` when no memory or thread is to be had.
    public init(
        _ configuration: WorkloadConfiguration,
        regions: [GuestRegion],
        origin: Origin,
        witness: Witness? = nil
    ) throws {
        try configuration.validate()
        let shapes = regions.map { region in
            let memory = region.memory
            return GuestDescription.Region(name: memory.name, pageSize: memory.pageSize, pageCount: memory.pageCount)
        }
        guard shapes == configuration.regions else {
            throw WorkloadError("the memory given to the workload is not of the shape that its configuration makes")
        }
        let memory = try WorkloadMemory(configuration, regions: regions)
        let clock = ClockDevice()
        let console = ConsoleDevice(clock: clock)
        let threads = (0..<configuration.threads).map { index in
            WorkloadThread(
                index: index,
                configuration: configuration,
                memory: memory,
                console: console,
                witness: witness
            )
        }
        self.configuration = configuration
        self.regions = regions
        self.memory = memory
        self.threads = threads
        self.clock = clock
        self.console = console
        devices = DeviceSet(
            [ProcessorDevice(threads), LedgerDevice(memory, travels: configuration.hasLedger), clock, console]
                + configuration.makeDevices(regions: regions, disksIn: origin.folders)
        )
        switch origin {
        case .new: try fill()
        // Now, since it takes a while: when the devices load, nobody runs.
        case .arriving where !configuration.hasLedger: memory.forgetVersions()
        case .arriving: break
        }
    }

    /// Makes a stopped new workload in memory of its own.
    ///
    /// - Throws: as ``init(_:regions:origin:witness:)``.
    public convenience init(new configuration: WorkloadConfiguration, witness: Witness? = nil) throws {
        try configuration.validate()
        try configuration.checkMemory()
        let regions = try configuration.regions.map { shape in
            let memory = try MemoryRegion(name: shape.name, pageSize: shape.pageSize, pageCount: shape.pageCount)
            return GuestRegion(memory: memory)
        }
        try self.init(configuration, regions: regions, origin: .new, witness: witness)
    }

    deinit {
        stop()
    }

    /// What a destination must know to make the same workload.
    public var description: GuestDescription { configuration.description }

    /// Starts its threads, or lets them go on where they were. Returns once they may run.
    ///
    /// - Throws: `SystemError` when a thread cannot be had; none has done anything then.
    public func run(_ permit: consuming RunPermit) throws -> StartResult {
        try current.withLock { current in
            precondition(current == nil, "a workload runs once at a time")
            let run = Run()
            let signal = run.signal
            for thread in threads {
                do {
                    try thread.prepare()
                    try run.threads.run("work-\(thread.index)") {
                        signal.waitForBegin()
                        thread.work(until: signal)
                    }
                } catch {
                    run.stop()
                    throw error
                }
            }
            clock.start()
            console.write("running \(configuration.pattern.rawValue)")
            isRunning.store(true, ordering: .relaxed)
            signal.begin()
            current = run
            return .runs
        }
    }

    /// Stops between two operations; returns once no thread executes any more.
    ///
    /// A thread that waits for an absent page ends its operation first.
    public func stop() {
        current.withLock { current in
            guard current != nil else { return }
            current?.stop()
            current = nil
            clock.stop()
            isRunning.store(false, ordering: .relaxed)
            console.write("stopped after \(threads.reduce(0) { $0 &+ $1.state.operations }) operations")
        }
    }

    /// What it has done so far in this process.
    public var activity: WorkloadActivity {
        var activity = WorkloadActivity()
        for thread in threads { thread.add(to: &activity) }
        activity.isRunning = isRunning.load(ordering: .relaxed)
        return activity
    }

    /// What each thread waited for pages that were absent.
    public var stalls: [LatencyRecorder] { threads.map(\.stalls) }

    /// How long all threads waited at once, in nanoseconds.
    public var blockedNanoseconds: UInt64? { memory.blocked.nanoseconds }

    /// How long it has run since its birth, on all hosts, in nanoseconds.
    public var guestTime: UInt64 { clock.now }

    /// The newest 4 KiB of its serial console.
    public var consoleText: String { console.text }

    /// Does a number of operations with each thread's work, one thread after the other, on the calling thread.
    func perform(operationsPerThread count: UInt64) throws {
        let signal = RunSignal()
        for thread in threads {
            try thread.prepare()
            thread.work(until: signal, limit: count)
        }
    }
}

extension WorkloadConfiguration {
    /// Makes the devices that were asked for; of several with one name, the second is called `name-2`, and so on.
    fileprivate func makeDevices(regions: [GuestRegion], disksIn folders: [AllowedFolder]?) -> [any Device] {
        var uses: [String: Int] = [:]
        return devices.map { specification in
            let use = uses[specification.deviceName, default: 0] + 1
            uses[specification.deviceName] = use
            let name = use == 1 ? specification.deviceName : "\(specification.deviceName)-\(use)"
            return switch specification {
            case .disk(let path): DiskDevice(name: name, path: path, in: folders)
            case .hook(let path): HookDevice(name: name, path: path, workload: pattern.rawValue)
            case .broken(let step): BrokenDevice(name: name, at: step)
            case .slow(let step, let seconds): SlowDevice(name: name, at: step, seconds: seconds)
            case .readsMemory: MemoryReadingDevice(name: name, regions: regions)
            case .large(let mebibytes): LargeDevice(name: name, mebibytes: mebibytes, seed: seed)
            }
        }
    }
}

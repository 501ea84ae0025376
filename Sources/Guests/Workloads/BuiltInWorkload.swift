package import Guest
package import LinuxSystem
import Synchronization
package import Telemetry

/// A workload of threads in this process that read and write self-describing pages.
///
/// Each page carries its index, its version and a checksum, by which a wrong page is recognised.
package final class BuiltInWorkload: Workload {
    /// Whether a workload is made anew or arrives.
    package enum Origin: Hashable, Sendable {
        /// A new workload, whose pages are filled.
        case new
        /// A workload that arrives with its memory and device states, and whose disks must lie in one of the folders.
        case arriving(disksIn: [AllowedFolder])

        /// The folders that a disk must lie in; nil if it may lie anywhere.
        fileprivate var folders: [AllowedFolder]? {
            switch self {
            case .new: nil
            case .arriving(let folders): folders
            }
        }
    }

    /// The configuration that the workload was made from.
    package let configuration: WorkloadConfiguration
    /// The workload's memory, with the pages that have arrived.
    package let regions: [GuestRegion]
    /// The memory of ``regions``.
    package var sourceMemory: [SourceRegion]? { regions.map { .mapped($0.memory) } }
    /// The devices `cpu`, `ledger`, `clock` and `serial`, then those of the configuration.
    package let devices: DeviceSet
    /// The number of devices that every built-in workload has.
    static let ownDevices = 4

    let memory: WorkloadMemory
    let threads: [WorkloadThread]
    let clock: ClockDevice
    let console: ConsoleDevice
    private let current = Mutex<Run?>(nil)
    // Relaxed: nothing else is read on the strength of this flag.
    private let isRunning = Atomic<Bool>(false)

    /// The threads of one run, and the signal that starts and ends them.
    private struct Run: Sendable {
        let signal = RunSignal()
        let threads = ThreadGroup()

        /// Ends the run, and waits for its threads.
        func stop() {
            signal.stop()
            threads.join()
        }
    }

    /// Makes a stopped workload in existing memory.
    ///
    /// - Parameters:
    ///   - configuration: the workload's pattern, threads and devices.
    ///   - regions: memory of the shapes in the configuration; zeros for a new workload.
    ///   - origin: whether the pages are filled now, which takes time in proportion to the memory, or arrive later.
    ///   - witness: a file in which the threads record their operations; nil for none.
    /// - Throws: ``WorkloadError`` if the configuration is invalid, a loaded file does not fit or the regions have
    ///   other shapes; `SystemError` if the kernel refuses memory or a thread.
    package init(
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
            throw WorkloadError("the memory given to the workload does not have the shape in its configuration")
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
        description = configuration.description
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
        // Done here and not when the devices load, since it takes a while and the workload runs nowhere at that time.
        case .arriving where !configuration.hasLedger: memory.forgetVersions()
        case .arriving: break
        }
    }

    /// Makes a stopped new workload in new memory.
    ///
    /// - Throws: the errors of ``init(_:regions:origin:witness:)``, and ``WorkloadError`` if the host has too little
    ///   memory.
    package convenience init(new configuration: WorkloadConfiguration, witness: Witness? = nil) throws {
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

    /// The description from which a destination makes the same workload.
    package let description: GuestDescription

    /// Starts a thread for each of the workload's threads, which continues from its last operation.
    ///
    /// Returns once the threads may run.
    ///
    /// - Throws: `SystemError` if a thread cannot be started, ``WorkloadError`` if the witness file is full. No
    ///   operation has begun then.
    package func run(_ permit: consuming RunPermit) throws -> StartResult {
        try current.withLock { current in
            guard current == nil else { return .runs }
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

    /// Stops each thread between two operations, and returns once no thread executes any more.
    ///
    /// A thread that waits for an absent page first finishes its operation, and so waits for the page.
    package func stop() {
        current.withLock { current in
            guard current != nil else { return }
            current?.stop()
            current = nil
            clock.stop()
            isRunning.store(false, ordering: .relaxed)
            console.write("stopped after \(threads.reduce(0) { $0 &+ $1.state.operations }) operations")
        }
    }

    /// The operations of all threads in this process.
    package var activity: WorkloadActivity {
        var activity = WorkloadActivity()
        for thread in threads { thread.add(to: &activity) }
        activity.isRunning = isRunning.load(ordering: .relaxed)
        return activity
    }

    /// The waits of each thread for absent pages.
    package var stalls: [LatencyRecorder] { threads.map(\.stalls) }

    /// The time in which all threads waited for absent pages at once, in nanoseconds.
    package var blockedNanoseconds: UInt64? { memory.blocked.nanoseconds }

    /// The time that the workload has run on all hosts since it was made, in nanoseconds.
    package var guestTime: UInt64 { clock.now }

    /// The newest 4 KiB of the serial console.
    package var consoleText: String { console.text }

    /// Does `count` operations of each thread's work on the calling thread, one thread after the other.
    func perform(operationsPerThread count: UInt64) throws {
        let signal = RunSignal()
        for thread in threads {
            try thread.prepare()
            thread.work(until: signal, limit: count)
        }
    }
}

extension WorkloadConfiguration {
    /// Makes the configured devices; the second of several with the same name is called `name-2`, and so on.
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

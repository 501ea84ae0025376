public import LinuxSystem
public import Telemetry

/// Something that runs in memory that an agent can move: a program of our own, a virtual machine, another process.
public protocol Workload: AnyObject, Sendable {
    /// What a destination must know to make the same workload.
    var description: GuestDescription { get }

    /// The memory that can be sent from here, once it is stopped and its devices are saved, region by region; nil where
    /// there is none in this process.
    var ownMemory: [MemoryRegion]? { get }

    /// The state that travels beside the memory.
    var devices: DeviceSet { get }

    /// Starts, or goes on exactly where the devices say it stopped. Returns once it runs.
    ///
    /// - Returns: whether the workload runs, or has ended by itself since it was started.
    /// - Throws: when the start provably executed nothing.
    func run(_ permit: consuming RunPermit) throws -> StartResult

    /// Stops between two operations; returns once nothing of it executes any more.
    ///
    /// - Throws: when it cannot be stopped from here; then it runs on.
    func stop() throws

    /// Does what takes long and can be done before it stops. Called while it runs, and is to move away.
    ///
    /// - Throws: why it cannot move; then it runs on.
    func prepareToMove() throws

    /// Says, once, how its arrival in this process has ended.
    func settle(_ arrival: Arrival)

    /// Says, once, that every page is there and that nothing more is placed in its memory. Called on a thread that may block.
    func memoryIsWhole()

    /// Says whom to tell, instead of whom was said before, when the workload has ended by itself after it was started,
    /// with the reason: the process that it lives in is gone. A workload of this process never tells.
    func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void)

    /// Whether the workload cannot outlive this process.
    var endsWithAgent: Bool { get }

    /// What it has done so far in this process.
    var activity: WorkloadActivity { get }

    /// What its threads waited for pages that were absent, one recorder a thread; empty where it cannot know.
    var stalls: [LatencyRecorder] { get }

    /// How long all of its threads have waited at once, in nanoseconds; nil where it cannot know.
    var blockedNanoseconds: UInt64? { get }

    /// Whether it knows what its pages should hold.
    var canVerify: Bool { get }

    /// Checks every page against what the workload knows it wrote. It is stopped.
    ///
    /// - Returns: nil where the workload cannot know.
    func verify() -> Verification?
}

extension Workload {
    /// As a workload of this process does.
    public var canVerify: Bool { true }

    /// Nothing takes long.
    public func prepareToMove() throws {}

    /// Nothing depends on it.
    public func settle(_ arrival: Arrival) {}

    /// As a workload of this process does.
    public var endsWithAgent: Bool { true }

    /// A workload of this process does not wait for that.
    public func memoryIsWhole() {}

    /// Nothing to tell of a workload that lives as long as this process.
    public func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) {}
}

/// What a start has come to that may have executed something.
public enum StartResult: Sendable, Hashable {
    /// The workload runs.
    case runs
    /// The workload was started, and has ended by itself since, for this reason. It may have executed.
    case ended(reason: String)
}

/// How a workload's arrival has ended.
public enum Arrival: Sendable {
    /// It runs, and all of its memory is here.
    case complete
    /// It will never be started here: it runs elsewhere, or nowhere.
    case abandoned
}

/// What a workload has done in one process. Times are of ``MonotonicClock``, in nanoseconds.
public struct WorkloadActivity: Hashable, Sendable {
    /// Operations since the process began.
    public var operations: UInt64 = 0
    /// Operations since the last start.
    public var operationsSinceStart: UInt64 = 0
    /// When the first operation after the last start ended; nil when there was none.
    public var firstOperation: UInt64?
    /// When the last operation ended; nil when there was none. Exact while the workload is stopped.
    public var lastOperation: UInt64?
    /// Whether it runs now.
    public var isRunning = false

    /// Nothing done yet.
    public init() {}
}

/// The outcome of a check of every page.
public struct Verification: Hashable, Codable, Sendable {
    /// Pages looked at.
    public var pagesChecked: Int
    /// Pages that do not hold what was written to them.
    public var corrupt: Int
    /// Lines of a loaded file that were found again, where one was loaded.
    public var lines: Lines?

    /// What was found again of a loaded file.
    public struct Lines: Hashable, Codable, Sendable {
        /// Lines found, each whole.
        public var found: Int
        /// Lines loaded.
        public var total: Int

        /// Makes a count.
        public init(found: Int, total: Int) {
            self.found = found
            self.total = total
        }
    }

    /// Makes an outcome.
    public init(pagesChecked: Int, corrupt: Int, lines: Lines? = nil) {
        self.pagesChecked = pagesChecked
        self.corrupt = corrupt
        self.lines = lines
    }
}

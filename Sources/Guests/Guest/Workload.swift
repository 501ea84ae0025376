package import LinuxSystem
package import Telemetry

/// A program whose memory and state an agent can move: a built-in workload, a virtual machine or another process.
package protocol Workload: AnyObject, Sendable {
    /// The description from which a destination makes the same workload.
    var description: GuestDescription { get }

    /// The workload's name on this host, for people; for an attached process, the name of its program.
    var name: String { get }

    /// The workload's memory, in the order of the description's regions.
    ///
    /// A migration sends this memory after the workload has stopped and its devices are saved. Nil for a workload that
    /// cannot be moved from here.
    var sourceMemory: [SourceRegion]? { get }

    /// The state that travels beside the memory.
    var devices: DeviceSet { get }

    /// Starts the workload, or resumes it exactly where the devices' state says that it stopped.
    ///
    /// Returns once the workload runs. A workload that runs already continues: this is also called when a move
    /// has ended before the stop.
    ///
    /// - Returns: whether the workload runs, or was started and has already ended by itself.
    /// - Throws: only if the start provably executed nothing; any doubt counts as a start.
    func run(_ permit: consuming RunPermit) throws -> StartResult

    /// Stops the workload between two operations, and returns once none of it executes any more.
    ///
    /// - Throws: if the workload cannot be stopped from here; it then continues to run.
    func stop() throws

    /// Whether the workload can move, and arrive, while it is stopped.
    var movesPaused: Bool { get }

    /// Does the slow part of a move that is possible before the stop, such as reserving memory.
    ///
    /// Called at a source before the workload is stopped, or while it is paused if it moves paused. If the move ends
    /// meanwhile, neither ``stop()`` nor a save follows. ``run(_:)`` follows then, unless the workload is paused.
    ///
    /// - Throws: why the workload cannot move; it then continues to run, or stays paused.
    func prepareToMove() throws

    /// Tells the workload how its arrival in this process ended; called at most once.
    func settle(_ arrival: Arrival)

    /// Tells the workload that every page is present and that nothing more will be placed in its memory.
    ///
    /// Called once, on a thread that may block.
    func memoryIsWhole()

    /// Tells the workload that it runs elsewhere for good and has all of its memory there; its memory here was dropped.
    ///
    /// Called once after a move, on a thread that may block.
    ///
    /// - Throws: why the workload could not be told.
    func hasMovedAway() throws

    /// Sets the handler for the workload's unexpected end, replacing any earlier one.
    ///
    /// The handler receives the reason when a started workload ends by itself, for instance because the process that
    /// it runs in has exited.
    func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void)

    /// Whether the workload cannot outlive this process.
    var endsWithAgent: Bool { get }

    /// Whether nothing of a workload that counts as ended can run any more.
    ///
    /// False for a process that has only hung up.
    var isGone: Bool { get }

    /// The operations that the workload has done in this process, and whether it runs.
    var activity: WorkloadActivity { get }

    /// The waits of the workload's threads for absent pages, one recorder per thread.
    ///
    /// Empty if the threads do not measure their waits; the fetcher then measures their faults.
    var stalls: [LatencyRecorder] { get }

    /// The time in which all threads of the workload waited at once, in nanoseconds; nil if it is not measurable.
    var blockedNanoseconds: UInt64? { get }

    /// Whether the workload knows what its pages should hold.
    var canVerify: Bool { get }

    /// Checks every page of the stopped workload against what the workload knows it wrote.
    ///
    /// - Returns: nil if the workload does not know what its pages should hold.
    /// - Throws: why the check could not be made.
    func verify() throws -> Verification?
}

extension Workload {
    /// The name in the description.
    package var name: String { description.name }

    /// True by default, for a workload whose program is part of this one.
    package var canVerify: Bool { true }

    /// True by default, for a workload that does not depend on how long it has been stopped.
    package var movesPaused: Bool { true }

    /// Does nothing by default.
    package func prepareToMove() throws {}

    /// Does nothing by default.
    package func settle(_ arrival: Arrival) {}

    /// True by default: a workload that has ended does not run.
    package var isGone: Bool { true }

    /// True by default, for a workload that runs on threads of this process.
    package var endsWithAgent: Bool { true }

    /// Does nothing by default.
    package func memoryIsWhole() {}

    /// Does nothing by default.
    package func hasMovedAway() throws {}

    /// Ignores the handler by default: a workload on threads of this process does not end before the process.
    package func onEnd(_ tell: @escaping @Sendable (_ reason: String) -> Void) {}
}

/// The outcome of a start that may have executed something.
package enum StartResult: Sendable, Hashable {
    /// The workload runs.
    case runs
    /// The workload was started and has since ended by itself, for this reason; it may have executed.
    case ended(reason: String)
}

/// How a workload's arrival has ended.
package enum Arrival: Sendable {
    /// All of the memory is here, and the workload was started, or arrived paused and stays paused.
    case complete
    /// The workload will never be started here: it runs elsewhere, or nowhere. If it was started, its missing pages
    /// never arrive, and it is to be ended.
    case abandoned
}

/// A workload's operations in one process, with times of `MonotonicClock` in nanoseconds.
package struct WorkloadActivity: Hashable, Sendable {
    /// Operations since the process began.
    package var operations: UInt64 = 0
    /// Operations since the last start.
    package var operationsSinceStart: UInt64 = 0
    /// When the first operation after the last start ended; nil before it.
    package var firstOperation: UInt64?
    /// When the last operation ended, exact only while the workload is stopped; nil before the first.
    package var lastOperation: UInt64?
    /// Whether the workload runs now.
    package var isRunning = false

    /// Makes the activity of a workload that was never started.
    package init() {}
}

/// The outcome of a check of every page.
package struct Verification: Hashable, Codable, Sendable {
    /// Pages that were checked.
    package var pagesChecked: Int
    /// Pages that do not hold what was written to them.
    package var corrupt: Int
    /// The lines of a loaded file; nil if no file was loaded.
    package var lines: Lines?

    /// How many lines of a loaded file are still whole in memory.
    package struct Lines: Hashable, Codable, Sendable {
        /// Lines found whole.
        package var found: Int
        /// Lines loaded.
        package var total: Int

        package init(found: Int, total: Int) {
            self.found = found
            self.total = total
        }
    }

    /// Makes an outcome; leave `lines` out if no file was loaded.
    package init(pagesChecked: Int, corrupt: Int, lines: Lines? = nil) {
        self.pagesChecked = pagesChecked
        self.corrupt = corrupt
        self.lines = lines
    }
}

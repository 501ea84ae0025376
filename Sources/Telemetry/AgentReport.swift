/// What one agent knows of a migration: the answer to its QMP command `pageferry-report`.
///
/// Times are microseconds of that agent's own clock; no time of one host is ever compared with one of the other.
public struct AgentReport: Codable, Hashable, Sendable {
    /// What the source alone can measure.
    public struct Source: Codable, Hashable, Sendable {
        /// From asking the workload to stop until it executes nothing.
        public var stop = 0.0
        /// Saving all devices.
        public var save = 0.0
        /// From the devices saved to PONG received: the way there and back, and the load in between.
        public var untilLoaded = 0.0
        /// From PONG received to RUNNING received: RUN's way there, the start, and the answer's way back.
        public var untilRunning = 0.0
        /// From the workload's last operation to RUN sent.
        public var lastOperationToRun = 0.0
        /// Operations since the workload was taken back; 0 if it was not.
        public var operationsAfterTakeBack: UInt64 = 0
        /// Requests answered on the urgent lane.
        public var requests = 0
        /// Bytes of pages sent.
        public var bytesSent = 0

        /// Nothing measured yet.
        public init() {}
    }

    /// What the destination alone can measure.
    public struct Destination: Codable, Hashable, Sendable {
        /// Loading all devices.
        public var load = 0.0
        /// From RUN received to the workload started, when RUNNING is sent.
        public var untilStarted = 0.0
        /// From RUN received to the workload's first operation, or to its start where it counts none.
        public var start = 0.0
        /// From RUN received to the last page placed; 0 while pages are missing.
        public var untilResident = 0.0
        /// Pages by how they came.
        public var pages = Report.Pages()
        /// What the workload's threads waited for absent pages.
        public var stall = LatencySummary()
        /// From reading a fault's event to its page placed.
        public var service = LatencySummary()
        /// What the machine and the network cost by themselves.
        public var floor = Report.Floor()

        /// Nothing measured yet.
        public init() {}
    }

    /// The instance id of the process, 32 hexadecimal digits.
    public var instance: String
    /// The id of the migration, 32 hexadecimal digits, or nil before a destination has heard of one.
    public var migration: String?
    /// Every state the migration has passed here, in QEMU's names, oldest first.
    public var states: [String] = ["none"]
    /// Why the migration failed here, or nil.
    public var error: String?
    /// Whether the workload runs here.
    public var runsHere = false
    /// Whether the workload can run here once more: it was not given away.
    public var holdsWorkload = false
    /// Why the workload that was started here, and not given away since, has ended by itself; nil while it has not.
    public var ended: String?
    /// Whether the workload here, or one that arrives here, knows what its pages should hold; nil where none can be here.
    public var canVerify: Bool?
    /// Bytes in a page; the largest where regions differ.
    public var pageSize = 0
    /// Bytes in all regions.
    public var memoryBytes: UInt64 = 0
    /// The workload's name.
    public var workload = ""
    /// Operations of the workload in this process.
    public var operations: UInt64 = 0
    /// Microseconds from the beginning of the migration to its end, or until now.
    public var total = 0.0
    /// Set on the source of a migration.
    public var source: Source?
    /// Set on the destination of a migration.
    public var destination: Destination?

    /// A report of nothing.
    public init(instance: String) {
        self.instance = instance
    }
}

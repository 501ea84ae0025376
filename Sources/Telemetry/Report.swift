import Outside

/// The report of one migration, `pageferry.report/1`: durations in microseconds, sizes in bytes.
public struct Report: Codable, Hashable, Sendable {
    /// How a migration ended.
    public enum Result: String, Codable, Hashable, Sendable {
        /// The workload and all of its memory have moved.
        case completed
        /// The workload did not move, or a page is wrong.
        case failed
        /// The workload was taken back because somebody asked for it.
        case cancelled
        /// The link broke after the switchover; pages are missing on the destination.
        case paused
    }

    /// Where the workload runs.
    public enum Side: String, Codable, Hashable, Sendable {
        /// It never left, or was taken back.
        case source
        /// It has moved.
        case destination
        /// It is stopped on both sides.
        case nobody
    }

    /// One side's way through the migration.
    public struct States: Codable, Hashable, Sendable {
        /// Every state, in QEMU's names, oldest first.
        public var states: [String]
    }

    /// What the workload did.
    public struct Workload: Codable, Hashable, Sendable {
        /// Which workload.
        public var name = ""
        /// Operations on the source.
        public var opsSource: UInt64 = 0
        /// Operations on the destination.
        public var opsDestination: UInt64 = 0
        /// Operations on the source after it took the workload back.
        public var opsAfterTakeBack: UInt64 = 0

        enum CodingKeys: String, CodingKey {
            case name
            case opsSource = "ops_source"
            case opsDestination = "ops_destination"
            case opsAfterTakeBack = "ops_after_take_back"
        }

        /// Nothing done.
        public init() {}
    }

    /// The parts of the time in which the workload ran nowhere.
    public struct Switchover: Codable, Hashable, Sendable {
        /// Stopping the workload.
        public var stop = 0.0
        /// Saving the devices.
        public var save = 0.0
        /// The devices' way to the destination, and the answer's way back.
        public var transfer = 0.0
        /// Loading the devices.
        public var load = 0.0
        /// The round trip that the destination's permission to start costs.
        public var grant = 0.0
        /// From the permission to the first operation.
        public var start = 0.0

        /// Nothing measured.
        public init() {}
    }

    /// Pages by how they came. `demand + prefetched + pushed + zero = total` when all have arrived.
    public struct Pages: Codable, Hashable, Sendable {
        /// Pages in all regions.
        public var total = 0
        /// Because somebody waited for them.
        public var demand = 0
        /// Because somebody was expected to touch them soon.
        public var prefetched = 0
        /// Those of the prefetched that nothing shows to have been used.
        public var prefetchedUnused = 0
        /// Out of the push, with bytes.
        public var pushed = 0
        /// Out of the push, known to be zero and sent without bytes.
        public var zero = 0
        /// Again, after they had been placed: not counted above.
        public var duplicate = 0

        enum CodingKeys: String, CodingKey {
            case total, demand, prefetched, pushed, zero, duplicate
            case prefetchedUnused = "prefetched_unused"
        }

        /// No pages.
        public init() {}

        /// Pages that have arrived.
        public var resident: Int {
            (Untrusted(demand) + Untrusted(prefetched) + Untrusted(pushed) + Untrusted(zero)).clamped(to: 0...Int.max)
        }
    }

    /// What the machine and the network cost before Pageferry adds anything.
    public struct Floor: Codable, Hashable, Sendable {
        /// Median of asking for 4096 bytes over the lane that faults use, and receiving them.
        public var roundTripP50 = 0.0
        /// Median of a fault that a thread of the same process answers from memory at hand.
        public var localFaultP50 = 0.0

        enum CodingKeys: String, CodingKey {
            case roundTripP50 = "round_trip_p50"
            case localFaultP50 = "local_fault_p50"
        }

        /// Nothing measured.
        public init() {}
    }

    /// The check of every page.
    public struct Verify: Codable, Hashable, Sendable {
        /// Pages looked at.
        public var pagesChecked = 0
        /// Pages that do not hold what the workload wrote.
        public var corrupt = 0
        /// Lines of a loaded file that were found again; absent where no file was loaded.
        public var linesFound: Int?
        /// Lines of a loaded file; absent where no file was loaded.
        public var linesTotal: Int?

        enum CodingKeys: String, CodingKey {
            case corrupt
            case pagesChecked = "pages_checked"
            case linesFound = "lines_found"
            case linesTotal = "lines_total"
        }

        /// Nothing checked.
        public init() {}
    }

    /// The form of this report.
    public var schema = "pageferry.report/1"
    /// How the migration ended.
    public var result = Result.failed
    /// Why it did not complete; nil if it did.
    public var error: String?
    /// Bytes in a page.
    public var pageSize = 0
    /// Bytes in all regions.
    public var memoryBytes: UInt64 = 0
    /// Where the workload runs; nil where nobody can know, as an agent that may have it does not answer.
    public var runsOn: Side? = .nobody
    /// The source's states.
    public var source = States(states: [])
    /// The destination's states.
    public var destination = States(states: [])
    /// What the workload did.
    public var workload = Workload()
    /// From the source's last operation to the destination's first.
    public var downtime = 0.0
    /// Its parts.
    public var switchover = Switchover()
    /// From the beginning of the migration to its end.
    public var total = 0.0
    /// Pages by how they came.
    public var pages = Pages()
    /// What the workload's threads waited for absent pages.
    public var stall = LatencySummary()
    /// From reading a fault's event to its page placed.
    public var service = LatencySummary()
    /// What the machine and the network cost by themselves.
    public var floor = Floor()
    /// MiB of memory that arrived in a second, from RUN to the last page.
    public var throughput = 0.0
    /// The check of every page.
    public var verify = Verify()

    enum CodingKeys: String, CodingKey {
        case schema, result, error, source, destination, workload, pages, verify
        case pageSize = "page_size"
        case memoryBytes = "memory_bytes"
        case runsOn = "runs_on"
        case downtime = "downtime_us"
        case switchover = "switchover_us"
        case total = "total_us"
        case stall = "stall_us"
        case service = "service_us"
        case floor = "floor_us"
        case throughput = "throughput_mib_s"
    }

    /// A report of nothing.
    public init() {}
}

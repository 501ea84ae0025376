package import Identity
import Outside

/// The report of one migration, `pageferry.report/1`, with durations in microseconds and sizes in bytes.
package struct Report: Codable, Hashable, Sendable {
    /// What the report is about.
    package enum Kind: String, Codable, Hashable, Sendable {
        /// The move of a workload from one agent to another.
        case migration
        /// A guest that was restored from a snapshot on another host.
        case restore
    }

    /// How a migration ended.
    package enum Result: String, Codable, Hashable, Sendable {
        /// The workload and all of its memory have moved.
        case completed
        /// The workload did not move, or a page is wrong.
        case failed
        /// The migration was cancelled, and the source has the workload.
        case cancelled
        /// The link broke after the switchover, and pages are missing at the destination.
        case paused
    }

    /// The side on which the workload runs.
    package enum Side: String, Codable, Hashable, Sendable {
        /// The source: the workload never left, or was taken back.
        case source
        /// The destination: the workload has moved.
        case destination
        /// Neither side: the workload is stopped on both.
        case nobody
    }

    /// The states that the migration has passed on one side.
    package struct States: Codable, Hashable, Sendable {
        /// Every state, in QEMU's names, oldest first.
        package var states: [MigrationState]
    }

    /// The workload's operations on both sides.
    package struct Workload: Codable, Hashable, Sendable {
        /// The workload's name.
        package var name = ""
        /// Operations on the source.
        package var opsSource: UInt64 = 0
        /// Operations on the destination.
        package var opsDestination: UInt64 = 0
        /// Operations on the source since it took the workload back; 0 if it did not.
        package var opsAfterTakeBack: UInt64 = 0

        enum CodingKeys: String, CodingKey {
            case name
            case opsSource = "ops_source"
            case opsDestination = "ops_destination"
            case opsAfterTakeBack = "ops_after_take_back"
        }

        package init() {}
    }

    /// The faults whose pages have not arrived when the report is made, for instance because the link broke.
    package struct Waiting: Codable, Hashable, Sendable {
        /// The number of waiting faults.
        package var faults = 0
        /// The time for which the oldest fault has waited, in microseconds.
        package var oldest = 0.0

        enum CodingKeys: String, CodingKey {
            case faults
            case oldest = "oldest_us"
        }

        /// Makes an empty record: no fault waits.
        package init() {}
    }

    /// The parts of the time in which the workload ran nowhere, in microseconds.
    package struct Switchover: Codable, Hashable, Sendable {
        /// The time for stopping the workload.
        package var stop = 0.0
        /// The time for saving the devices.
        package var save = 0.0
        /// The way of the devices' states to the destination, and of the answer back.
        package var transfer = 0.0
        /// The time for loading the devices.
        package var load = 0.0
        /// The round trip of the permission to start.
        package var grant = 0.0
        /// From the receipt of the permission to the first operation.
        package var start = 0.0

        /// Makes parts that are all zero.
        package init() {}
    }

    /// The number of pages, by the reason for which they were sent.
    ///
    /// Once all pages have arrived, `demand + prefetched + pushed + zero = total`.
    package struct Pages: Codable, Hashable, Sendable {
        /// Pages in all regions together.
        package var total = 0
        /// Pages that a thread waited for.
        package var demand = 0
        /// Pages that were requested before they were touched.
        package var prefetched = 0
        /// Prefetched pages for which no use was observed.
        package var prefetchedUnused = 0
        /// Pages that the source pushed, with their content.
        package var pushed = 0
        /// Pages of zeros that the source pushed, without content.
        package var zero = 0
        /// Pages that arrived again after they had been placed; not counted in the other numbers.
        package var duplicate = 0

        enum CodingKeys: String, CodingKey {
            case total, demand, prefetched, pushed, zero, duplicate
            case prefetchedUnused = "prefetched_unused"
        }

        /// Makes numbers that are all zero.
        package init() {}

        /// The number of pages that have arrived.
        package var resident: Int {
            (Untrusted(demand) + Untrusted(prefetched) + Untrusted(pushed) + Untrusted(zero)).clamped(to: 0...Int.max)
        }
    }

    /// What the push has compressed.
    package struct Compression: Codable, Hashable, Sendable {
        /// The setting of the source: none, lz4, zstd or auto.
        package var setting: String
        /// The codec of the latest run that went compressed; none if every page went as it is.
        package var codec: String
        /// Bytes of the pages that went compressed.
        package var bytesBefore: Int
        /// The bytes that were sent for these pages.
        package var bytesAfter: Int
        /// The processor time of compressing, in microseconds.
        package var processorTime: Double
        /// Runs of pages that went compressed.
        package var runs: Int
        /// Runs that went as they are, because they did not shrink enough.
        package var runsUnshrunk: Int
        /// Runs that were not tried, because the runs before them did not shrink.
        package var runsSkipped: Int

        enum CodingKeys: String, CodingKey {
            case setting, codec, runs
            case bytesBefore = "bytes_before"
            case bytesAfter = "bytes_after"
            case processorTime = "cpu_us"
            case runsUnshrunk = "runs_unshrunk"
            case runsSkipped = "runs_skipped"
        }

        package init(
            setting: String,
            codec: String,
            bytesBefore: Int,
            bytesAfter: Int,
            processorTime: Double,
            runs: Int,
            runsUnshrunk: Int,
            runsSkipped: Int
        ) {
            self.setting = setting
            self.codec = codec
            self.bytesBefore = bytesBefore
            self.bytesAfter = bytesAfter
            self.processorTime = processorTime
            self.runs = runs
            self.runsUnshrunk = runsUnshrunk
            self.runsSkipped = runsSkipped
        }
    }

    /// How the waits of the workload's threads were measured.
    package enum StallOrigin: String, Codable, Hashable, Sendable {
        /// Each thread of the workload measured its own accesses.
        case accesses
        /// The agent measured the faults of each thread, from reading the event to placing the page, and has added the
        /// median time of a local fault.
        case faults
    }

    /// The stalls of one thread, by its faults.
    package struct Thread: Codable, Hashable, Sendable {
        /// The thread's id, as its own process sees it.
        package var id: UInt32
        /// The stalls that have ended.
        package var count: UInt64
        /// The sum of the stalls that have ended, in microseconds.
        package var total: Double
        /// The page for which the thread waits; nil if it waits for none.
        package var waiting: Wait?

        /// A wait for a page.
        package struct Wait: Codable, Hashable, Sendable {
            /// The index of the page's region.
            package var region: Int
            /// The page's index in its region.
            package var page: Int
            /// The time for which the thread has waited, in microseconds.
            package var time: Double

            enum CodingKeys: String, CodingKey {
                case region, page
                case time = "us"
            }

            package init(region: Int, page: Int, time: Double) {
                (self.region, self.page, self.time) = (region, page, time)
            }
        }

        enum CodingKeys: String, CodingKey {
            case id, count, waiting
            case total = "total_us"
        }

        package init(id: UInt32, count: UInt64, total: Double, waiting: Wait?) {
            (self.id, self.count, self.total, self.waiting) = (id, count, total, waiting)
        }
    }

    /// The costs of this machine and network alone, without Pageferry, in microseconds.
    package struct Floor: Codable, Hashable, Sendable {
        /// The median time to request 4096 bytes on a lane for faults, and to receive them.
        package var roundTripP50 = 0.0
        /// The median time of a fault that a thread of the same process answers from local memory.
        package var localFaultP50 = 0.0

        enum CodingKeys: String, CodingKey {
            case roundTripP50 = "round_trip_p50"
            case localFaultP50 = "local_fault_p50"
        }

        /// Makes costs that are not measured, which are 0.
        package init() {}
    }

    /// A state, and when a side has entered it.
    package struct Passed: Codable, Hashable, Sendable {
        package var state: MigrationState
        /// Microseconds since the migration began.
        package var at: Double

        enum CodingKeys: String, CodingKey {
            case state
            case at = "at_us"
        }

        package init(state: MigrationState, at: Double) { (self.state, self.at) = (state, at) }
    }

    /// The states of both sides on one clock, that of the source.
    package struct Course: Codable, Hashable, Sendable {
        /// By how much the destination's times may be wrong, in microseconds.
        package var error: Double
        package var source: [Passed]
        package var destination: [Passed]

        enum CodingKeys: String, CodingKey {
            case source, destination
            case error = "error_us"
        }
    }

    /// The numbers of waits by their lengths.
    package struct Distribution: Codable, Hashable, Sendable {
        /// The equal parts of an octave by which waits are counted.
        package var perOctave = 8
        /// For each part with a wait its end in microseconds, and the number of waits.
        package var stall: [[Double]]
        package var service: [[Double]]

        enum CodingKeys: String, CodingKey {
            case stall, service
            case perOctave = "per_octave"
        }

        package init(stall: [[Double]], service: [[Double]]) { (self.stall, self.service) = (stall, service) }
    }

    /// When the memory arrived at the destination, by its place.
    package struct Arrivals: Codable, Hashable, Sendable {
        /// The pages of each cell, except that the last cell of a region may have fewer.
        package var pagesPerCell: Int
        /// The regions, in their order.
        package var regions: [LiveMap.Region]
        /// For each cell, in the order of addresses, when half of its pages had arrived, in milliseconds since the
        /// destination received the permission to start; nil if fewer have arrived.
        package var at: [UInt64?]

        enum CodingKeys: String, CodingKey {
            case regions
            case pagesPerCell = "pages_per_cell"
            case at = "at_ms"
        }

        package init(pagesPerCell: Int, regions: [LiveMap.Region], at: [UInt64?]) {
            (self.pagesPerCell, self.regions, self.at) = (pagesPerCell, regions, at)
        }
    }

    /// The outcome of the check of every page.
    package struct Verify: Codable, Hashable, Sendable {
        /// Pages that were checked.
        package var pagesChecked = 0
        /// Pages that do not hold what the workload wrote.
        package var corrupt = 0
        /// Lines of a loaded file that are still whole in memory; nil if no file was loaded.
        package var linesFound: Int?
        /// Lines of a loaded file; nil if no file was loaded.
        package var linesTotal: Int?

        enum CodingKeys: String, CodingKey {
            case corrupt
            case pagesChecked = "pages_checked"
            case linesFound = "lines_found"
            case linesTotal = "lines_total"
        }

        package init() {}
    }

    /// The name and version of the report's format.
    package var schema = "pageferry.report/1"
    /// What the report is about; nil in a report of a release that has no other kind than a migration.
    package var kind: Kind? = .migration
    /// How the migration ended.
    package var result = Result.failed
    /// Why the migration did not complete, or why its workload does not run under an agent although it did;
    /// nil for neither.
    package var error: String?
    /// Bytes in a page; the largest size if regions differ.
    package var pageSize = 0
    /// Bytes in all regions together.
    package var memoryBytes: UInt64 = 0
    /// The side on which the workload runs; nil if an agent that may have the workload does not answer.
    package var runsOn: Side? = .nobody
    /// The states that the migration passed at the source.
    package var source = States(states: [])
    /// The states that the migration passed at the destination.
    package var destination = States(states: [])
    /// The workload's operations on both sides.
    package var workload = Workload()
    /// From the source's last operation to the end of the destination's first, in microseconds.
    package var downtime = 0.0
    /// The parts of the downtime.
    package var switchover = Switchover()
    /// From the beginning of the migration to its end, in microseconds.
    package var total = 0.0
    /// The number of pages, by the reason for which they were sent.
    package var pages = Pages()
    /// What the push has compressed; nil if the source does not say.
    package var compression: Compression?
    /// The waits of the workload's threads for absent pages.
    package var stall = LatencySummary()
    /// How ``stall`` was measured; nil if it cannot be.
    package var stallOrigin: StallOrigin?
    /// The stalls of each thread that has faulted; nil if they were not measured by faults.
    package var threads: [Thread]?
    /// The faults whose pages have not arrived.
    package var waiting = Waiting()
    /// The times from the reading of a fault's event to the placement of its page.
    package var service = LatencySummary()
    /// The costs of this machine and network alone.
    package var floor = Floor()
    /// The states of both sides with their times; nil if an agent does not say them.
    package var course: Course?
    /// ``stall`` and ``service`` by length; nil if the destination does not say.
    package var distribution: Distribution?
    /// When the memory arrived, by its place; nil if the destination does not say.
    package var arrivals: Arrivals?
    /// The number of connections of the push; nil if the source does not say.
    package var pushLanes: Int?
    /// The rate at which memory arrived, from RUN to the last page, in MiB per second.
    package var throughput = 0.0
    /// The outcome of the check of every page.
    package var verify = Verify()

    enum CodingKeys: String, CodingKey {
        case schema, kind, result, error, source, destination, workload, pages, compression, verify, waiting, threads,
            arrivals
        case pageSize = "page_size"
        case memoryBytes = "memory_bytes"
        case runsOn = "runs_on"
        case downtime = "downtime_us"
        case switchover = "switchover_us"
        case total = "total_us"
        case stall = "stall_us"
        case stallOrigin = "stall_origin"
        case service = "service_us"
        case floor = "floor_us"
        case course = "timeline"
        case distribution = "histogram"
        case pushLanes = "push_lanes"
        case throughput = "throughput_mib_s"
    }

    /// Makes the report of a migration that failed before it began.
    package init() {}
}

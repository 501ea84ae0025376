package import Identity

/// One agent's view of a migration: the answer to its QMP command `pageferry-report`.
///
/// Times are microseconds of that agent's own clock. A time of one host is never compared with a time of the other.
package struct AgentReport: Codable, Hashable, Sendable {
    /// The measurements that only a source can make, with times in microseconds.
    package struct Source: Codable, Hashable, Sendable {
        /// From the request to stop until the workload executes nothing any more.
        package var stop = 0.0
        /// The time for saving all devices.
        package var save = 0.0
        /// From the devices' save to the receipt of PONG: the way there, the load, and the way back.
        package var untilLoaded = 0.0
        /// From the receipt of PONG to the receipt of RUNNING: the way of RUN, the start, and the way of the answer.
        package var untilRunning = 0.0
        /// From the sending of the RUN that started the workload to the receipt of RUNNING.
        ///
        /// A RUN that is sent again counts from the first time. Nil from an agent that does not report this time.
        package var runToRunning: Double?
        /// From the workload's last operation to the sending of RUN.
        package var lastOperationToRun = 0.0
        /// Operations since the workload was taken back; 0 if it was not.
        package var operationsAfterTakeBack: UInt64 = 0
        /// The number of requests answered on the urgent lanes.
        package var requests = 0
        /// The bytes of pages sent; compressed pages count as they were sent.
        package var bytesSent = 0
        /// The number of connections of the push over the latest link; nil before a link, and from an agent that does
        /// not say.
        package var pushLanes: Int?
        /// What the push has compressed; nil from an agent that does not say.
        package var compression: Report.Compression?
        /// Where the destination is dialed; nil from an agent that does not say.
        package var address: String?
        /// The instance id of the destination, once it is known; the one that is wanted before.
        package var destination: String?
        /// What a paused source retries by itself; nil if only an operator can end the pause.
        package var search: Search?

        /// Whether an agent has answered at the destination's address in this migration; nil from an agent that does
        /// not say.
        package var hasMet: Bool?
        /// Whether the agent that has answered there is another one than the operator named; nil from an agent that does
        /// not say.
        package var hasMetOther: Bool?
        /// Whether the workload resumes here if the operator states that the destination is gone and never ran it.
        ///
        /// Nil from an agent that does not say.
        package var resumesOnWord: Bool?

        /// Makes measurements that are all zero.
        package init() {}
    }

    /// What a paused source retries in order to end the pause without an operator.
    package enum Search: String, Codable, Hashable, Sendable {
        /// The source redials the destination.
        case destination
        /// The source rereads the run lease, which decides which side runs.
        case lease
    }

    /// The measurements that only a destination can make, with times in microseconds.
    package struct Destination: Codable, Hashable, Sendable {
        /// The time for loading all devices.
        package var load = 0.0
        /// From the receipt of RUN to the workload's start, when RUNNING is sent.
        package var untilStarted = 0.0
        /// From the receipt of RUN to the workload's first operation, or to its start if operations are not counted.
        package var start = 0.0
        /// From the receipt of RUN to the placement of the last page; 0 while pages are missing.
        package var untilResident = 0.0
        /// The pages, by the reason for which they were sent.
        package var pages = Report.Pages()
        /// The number of faults whose pages have not arrived yet.
        package var waitingFaults = 0
        /// The time for which the oldest waiting fault has waited; 0 if none waits.
        package var oldestFault = 0.0
        /// Whether everything is ready, and the workload will start on `cont`.
        package var awaitsCont = false
        /// Whether the workload ended before its start was reported, and may have executed; nil from an agent that does
        /// not say.
        package var endedInStart: Bool?
        /// The waits of the workload's threads for absent pages.
        package var stall = LatencySummary()
        /// How ``stall`` was measured; nil if it cannot be, and from an agent that does not say.
        package var stallOrigin: Report.StallOrigin?
        /// The stalls of each thread that has faulted since the start; nil if ``stallOrigin`` is not faults, or the
        /// memory is freed.
        package var threads: [Report.Thread]?
        /// The times from the reading of a fault's event to the placement of its page.
        package var service = LatencySummary()
        /// The costs of this machine and network alone.
        package var floor = Report.Floor()
        /// ``stall`` and ``service`` by eighths of an octave; nil from an agent that does not say.
        package var distribution: Report.Distribution?
        /// When the memory arrived, by its place; nil before the permission to start, once the memory is freed, and from
        /// an agent that does not say.
        package var arrivals: Report.Arrivals?

        /// Makes measurements that are all zero.
        package init() {}
    }

    /// The agent process's instance id, 32 hexadecimal digits.
    package var instance: String
    /// The host's boot id and network namespace, equal for processes on one loopback interface; nil if unknown.
    package var network: String?
    /// The id of the migration, 32 hexadecimal digits; nil at a destination before a source has connected.
    package var migration: String?
    /// Every state that the migration has passed here, oldest first; never empty in a sound report.
    package var states: [MigrationState] = [.none]
    /// The same states with their times since the migration began here; nil from an agent that does not say.
    package var path: [Report.Passed]?
    /// Whether a migration is under way here, so that there is something to cancel; nil from an agent that does not say.
    package var isUnderWay: Bool?
    /// Why the migration failed here; nil if it did not.
    package var error: String?
    /// Whether the workload runs here.
    package var runsHere = false
    /// Whether the workload may still run here, since the other side was not permitted to start it.
    package var holdsWorkload = false
    /// Why the workload ended by itself after its start here; nil if it did not, or has moved away since.
    package var ended: String?
    /// Whether the workload that counts as ended here may still run, out of this agent's reach.
    ///
    /// Nil from an agent that does not say.
    package var mayRunAlone: Bool?
    /// What an operator has to do about a workload that waits here for pages which never come; nil for nothing.
    package var leftover: String?
    /// Whether a workload here knows what its pages should hold; nil if no workload can be here.
    package var canVerify: Bool?
    /// Bytes in a page; the largest size if regions differ.
    package var pageSize = 0
    /// Bytes in all regions together.
    package var memoryBytes: UInt64 = 0
    /// The workload's name.
    package var workload = ""
    /// Operations of the workload in this process.
    package var operations: UInt64 = 0
    /// Microseconds from the beginning of the migration to its end, or until now.
    package var total = 0.0
    /// The source's measurements; nil at a destination.
    package var source: Source?
    /// The destination's measurements; nil at a source.
    package var destination: Destination?

    /// Makes the report of an agent without a migration.
    package init(instance: String) {
        self.instance = instance
    }
}

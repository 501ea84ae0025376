/// The metrics of Pageferry; the article WatchAndAlert lists each of them.
extension Metric {
    /// Every metric, in the order in which pages of metrics show them.
    package static let all: [Metric] =
        [build, startTime, droppedLogLines, httpConnections, httpConnectionLimit, eventStreams, ready]
        + agents + servers + guests

    // MARK: Every process

    package static let build = Metric(
        "pageferry_build",
        .info,
        "The release that runs, its page protocol, and whether it is an agent, a handler or a server",
        labels: ["version", "protocol", "kind"]
    )
    package static let startTime = Metric(
        "process_start_time_seconds",
        .gauge,
        "The time at which the process began to answer here, in seconds since 1970"
    )
    package static let droppedLogLines = Metric(
        "pageferry_dropped_log_lines",
        .counter,
        "Log lines that were only counted, because they repeat or because standard error was not read"
    )
    package static let httpConnections = Metric(
        "pageferry_http_connections",
        .gauge,
        "Connections to this page in use"
    )
    package static let httpConnectionLimit = Metric(
        "pageferry_http_connections_limit",
        .gauge,
        "The most connections to this page at a time"
    )
    package static let eventStreams = Metric(
        "pageferry_http_event_streams",
        .gauge,
        "Live pages that are being watched"
    )
    package static let ready = Metric(
        "pageferry_ready",
        .gauge,
        "Whether the process takes work, as /readyz says"
    )

    // MARK: Agents

    private static let agents = [
        migrationState, migrations, workloadRunning, memoryBytes, memoryPages, residentRatio, pages, stall, service,
        waitingFaults, oldestFault, laneBytes, laneRate, requests, retries, reconnects, pauses, recoveries, leaseEpoch,
        leaseConflicts,
    ]

    package static let migrationState = Metric(
        "pageferry_migration_state",
        .gauge,
        "1 for the state in which the migration of this agent is, and 0 for every other state",
        labels: ["role", "state"]
    )
    package static let migrations = Metric(
        "pageferry_migrations",
        .counter,
        "Migrations that have ended here, by their result",
        labels: ["role", "result"]
    )
    package static let workloadRunning = Metric(
        "pageferry_workload_running",
        .gauge,
        "Whether the workload runs here"
    )
    package static let memoryBytes = Metric(
        "pageferry_memory_bytes",
        .gauge,
        "The memory of the workload that is here, leaves or arrives"
    )
    package static let memoryPages = Metric(
        "pageferry_memory_pages",
        .gauge,
        "The pages of the workload that leaves or arrives"
    )
    package static let residentRatio = Metric(
        "pageferry_resident_ratio",
        .gauge,
        "The fraction of the pages that have arrived here, or at a source, that were sent",
        labels: ["role"]
    )
    package static let pages = Metric(
        "pageferry_pages",
        .counter,
        "Pages of the latest migration by how they came: demand, prefetched, pushed, zero, or duplicate",
        labels: ["role", "origin"]
    )
    package static let stall = Metric(
        "pageferry_stall_seconds",
        .histogram,
        "How long the threads of the workload waited for an absent page"
    )
    package static let service = Metric(
        "pageferry_service_seconds",
        .histogram,
        "The time from reading a fault to the placement of its page"
    )
    package static let waitingFaults = Metric(
        "pageferry_waiting_faults",
        .gauge,
        "Faults whose page has not arrived"
    )
    package static let oldestFault = Metric(
        "pageferry_oldest_fault_age_seconds",
        .gauge,
        "How long the oldest waiting fault has waited; 0 if none waits"
    )
    package static let laneBytes = Metric(
        "pageferry_lane_bytes",
        .counter,
        "Bytes that a connection for pages has carried in the latest migration",
        labels: ["role", "lane", "index"]
    )
    package static let laneRate = Metric(
        "pageferry_lane_bytes_per_second",
        .gauge,
        "The rate of a connection for pages since the last look, at least a second ago",
        labels: ["role", "lane", "index"]
    )
    package static let requests = Metric(
        "pageferry_requests",
        .counter,
        "Requests for pages that this source has answered in the latest migration"
    )
    package static let retries = Metric(
        "pageferry_retries",
        .counter,
        "Attempts to reach the destination again after a link broke"
    )
    package static let reconnects = Metric(
        "pageferry_reconnects",
        .counter,
        "Links that were made again after one broke"
    )
    package static let pauses = Metric(
        "pageferry_pauses",
        .counter,
        "Times that a migration of this agent has paused"
    )
    package static let recoveries = Metric(
        "pageferry_recoveries",
        .counter,
        "Times that a paused migration has continued"
    )
    package static let leaseEpoch = Metric(
        "pageferry_lease_epoch",
        .gauge,
        "The epoch of the newest record of the run lease that this agent has written"
    )
    package static let leaseConflicts = Metric(
        "pageferry_lease_conflicts",
        .counter,
        "Times that the run lease was refused, because another agent holds it"
    )

    // MARK: Snapshot servers

    private static let servers = [
        serverConnections, serverConnectionLimit, serverSessions, serverRequests, serverRefusals, serverPages,
        serverBytes, serverRate, snapshotBytes, snapshotProved,
    ]

    package static let serverConnections = Metric(
        "pageferry_server_connections",
        .gauge,
        "Connections of guests in use"
    )
    package static let serverConnectionLimit = Metric(
        "pageferry_server_connections_limit",
        .gauge,
        "The most connections of guests at a time"
    )
    package static let serverSessions = Metric("pageferry_server_sessions", .gauge, "Guests that are being served")
    package static let serverRequests = Metric(
        "pageferry_server_requests",
        .counter,
        "Requests of guests that were answered"
    )
    package static let serverRefusals = Metric(
        "pageferry_server_refusals",
        .counter,
        "Connections of guests that were refused"
    )
    package static let serverPages = Metric(
        "pageferry_server_pages",
        .counter,
        "Pages sent to guests, with their bytes or as zeros",
        labels: ["content"]
    )
    package static let serverBytes = Metric(
        "pageferry_server_sent_bytes",
        .counter,
        "Bytes of pages sent to guests"
    )
    package static let serverRate = Metric(
        "pageferry_server_sent_bytes_per_second",
        .gauge,
        "The rate of sending since the last look, at least a second ago"
    )
    package static let snapshotBytes = Metric("pageferry_snapshot_bytes", .gauge, "The size of the snapshot's file")
    package static let snapshotProved = Metric(
        "pageferry_snapshot_proved",
        .gauge,
        "Whether the content of the snapshot's file is proved; 0 while it is read again because its times have changed"
    )

    // MARK: Restored guests

    private static let guests = [
        guestCount, guestsOmitted, adoptedGuests, guestState, guestPages, guestMemoryPages, guestResidentRatio,
        guestWaitingFaults, guestOldestFault, guestPolicy, guestService, workerRestarts, guestFillRate,
    ]

    private static let guestLabels = ["guest", "pid", "name", "socket"]

    package static let guestCount = Metric(
        "pageferry_guests",
        .gauge,
        "Guests of this handler, by their state",
        labels: ["state"]
    )
    package static let guestsOmitted = Metric(
        "pageferry_guests_omitted",
        .gauge,
        "Guests that the metrics of single guests leave out, since they are too many"
    )
    package static let adoptedGuests = Metric(
        "pageferry_adopted_guests",
        .counter,
        "Guests that were taken over from an earlier handler"
    )
    package static let guestState = Metric(
        "pageferry_guest_state",
        .gauge,
        "1 for the state in which a guest is",
        labels: guestLabels + ["state", "server", "policy"]
    )
    package static let guestPages = Metric(
        "pageferry_guest_pages",
        .counter,
        "Pages of a guest by how they came: demand, or ahead of their use",
        labels: guestLabels + ["origin"]
    )
    package static let guestMemoryPages = Metric(
        "pageferry_guest_memory_pages",
        .gauge,
        "The pages of a guest",
        labels: guestLabels
    )
    package static let guestResidentRatio = Metric(
        "pageferry_guest_resident_ratio",
        .gauge,
        "The fraction of a guest's pages that have arrived",
        labels: guestLabels
    )
    package static let guestWaitingFaults = Metric(
        "pageferry_guest_waiting_faults",
        .gauge,
        "Faults of a guest whose page has not arrived",
        labels: guestLabels
    )
    package static let guestOldestFault = Metric(
        "pageferry_guest_oldest_fault_age_seconds",
        .gauge,
        "How long the oldest waiting fault of a guest has waited; 0 if none waits",
        labels: guestLabels
    )
    package static let guestPolicy = Metric(
        "pageferry_guest_policy_countdown_seconds",
        .gauge,
        "The time until the policy of a guest acts, for a guest that needs a page which cannot be fetched",
        labels: guestLabels
    )
    package static let guestService = Metric(
        "pageferry_guest_service_seconds",
        .summary,
        "The time from reading a fault of a guest to the placement of its page",
        labels: guestLabels
    )
    package static let workerRestarts = Metric(
        "pageferry_worker_restarts",
        .counter,
        "Workers that were started again for a guest",
        labels: guestLabels
    )
    package static let guestFillRate = Metric(
        "pageferry_guest_fill_bytes_per_second",
        .gauge,
        "The limit of the rate at which the rest of a guest's memory is fetched, for a guest that is filled",
        labels: guestLabels
    )
}

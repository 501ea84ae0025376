import Connections
import Guest
import Identity
import LinuxSystem
import PageFetcher
import PageProtocol
import PageServer
import QMP
import Switchover
import Telemetry

/// Answers to the queries of QMP clients.
extension Agent {
    /// `pageferry-report`.
    func report() async -> AgentReport {
        var report = AgentReport(instance: instance.description)
        report.network = HostNetwork.name
        let recorders = await incoming?.fill(&report)
        recorders?.summarize(into: &report)
        await outgoing?.fill(&report)
        report.isUnderWay =
            if let outgoing { await outgoing.isUnderWay } else { await (successor ?? incoming)?.isUnderWay ?? false }
        if case .success = await ownership() { report.holdsWorkload = true }
        report.canVerify = await workload?.canVerify ?? landing?.canVerify
        // The workload comes last: if a state in the report says that the workload runs again, `runsHere` says so too.
        if let workload = await workload {
            let description = workload.description
            let activity = workload.activity
            report.workload = workload.name
            report.operations = activity.operations
            report.runsHere = activity.isRunning
            report.ended = await workloadEnd
            report.mayRunAlone = report.ended != nil && !workload.isGone
            report.leftover = await incoming?.leftover
            report.pageSize = description.regions.map(\.pageSize).max() ?? 0
            report.memoryBytes = description.regions.reduce(0) { $0 + UInt64($1.pageSize) * UInt64($1.pageCount) }
        }
        return report
    }

    /// `query-name`.
    func queryName() async -> JSONValue {
        guard let name = await workload?.name else { return [:] }
        return ["name": .string(name)]
    }

    /// `query-status`.
    func queryStatus() async -> JSONValue {
        let isRunning = await workload?.activity.isRunning ?? false
        return ["status": .string(await runState(isRunning: isRunning)), "running": .boolean(isRunning)]
    }

    /// `query-migrationthreads`: the threads of this process that keep the links of migrations or carry pages.
    func queryThreads() throws -> JSONValue {
        let names = Set(PageServer.threadNames + PageFetcher.threadNames + ControlThreads.threadNames)
        return .array(
            try RunningThread.all().filter { names.contains($0.name) }.map {
                ["name": .string($0.name), "thread-id": JSONValue($0.id)]
            }
        )
    }

    private func runState(isRunning: Bool) async -> String {
        if isRunning { return "running" }
        if let incoming, await !incoming.snapshot().hasStarted { return "inmigrate" }
        guard let outgoing else {
            if incoming != nil || ownWorkload != nil { return "paused" }
            return landing == nil ? "prelaunch" : "inmigrate"
        }
        switch await outgoing.snapshot().state {
        case .completed: return "postmigrate"
        // Before its switchover, only a client has stopped the workload.
        case .active where outgoing.settings.isPaused: return "paused"
        case .active, .preSwitchover, .device, .postcopyDevice, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup,
            .postcopyRecover:
            return "finish-migrate"
        case .none, .setup, .failed, .cancelling, .cancelled: return "paused"
        }
    }
}

import Guest
import LinuxSystem
import PageProtocol
import QMP
import Switchover
import Telemetry

/// What QMP clients are told.
extension Agent {
    /// `pageferry-report`.
    func report() async -> AgentReport {
        var report = AgentReport(instance: instance.description)
        await incoming?.fill(&report)
        await outgoing?.fill(&report)
        if case .success = await ownership() { report.holdsWorkload = true }
        report.canVerify = await workload?.canVerify ?? landing?.canVerify
        // Looked at last: where a state tells that the workload runs again, it is seen to.
        if let workload = await workload {
            let description = workload.description
            let activity = workload.activity
            report.workload = description.name
            report.operations = activity.operations
            report.runsHere = activity.isRunning
            report.ended = await workloadEnd
            report.pageSize = description.regions.map(\.pageSize).max() ?? 0
            report.memoryBytes = description.regions.reduce(0) { $0 + UInt64($1.pageSize) * UInt64($1.pageCount) }
        }
        return report
    }

    /// `query-name`.
    func queryName() async -> JSONValue {
        guard let name = await workload?.description.name else { return [:] }
        return ["name": .string(name)]
    }

    /// `query-status`.
    func queryStatus() async -> JSONValue {
        let isRunning = await workload?.activity.isRunning ?? false
        return ["status": .string(await runState(isRunning: isRunning)), "running": .boolean(isRunning)]
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
        case .active, .device, .postcopyDevice, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup,
            .postcopyRecover:
            return "finish-migrate"
        case .none, .setup, .failed, .cancelling, .cancelled: return "paused"
        }
    }
}

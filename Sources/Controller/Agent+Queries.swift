import Guest
import LinuxSystem
import PageProtocol
import QMP
import SourceAgent
import Switchover
import Telemetry

/// What QMP clients are told.
extension Agent {
    /// `pageferry-report`.
    func report() async -> AgentReport {
        var report = AgentReport(instance: instance.description)
        if let workload = await workload {
            let description = workload.description
            let activity = workload.activity
            report.workload = description.name
            report.operations = activity.operations
            report.runsHere = activity.isRunning
            report.pageSize = description.regions.map(\.pageSize).max() ?? 0
            report.memoryBytes = description.regions.reduce(0) { $0 + UInt64($1.pageSize) * UInt64($1.pageCount) }
        }
        if case .success = await ownership() { report.holdsWorkload = true }
        await incoming?.fill(&report)
        await outgoing?.fill(&report)
        return report
    }

    /// `query-status`.
    func queryStatus() async -> JSONValue {
        let isRunning = await workload?.activity.isRunning ?? false
        return ["status": .string(await runState(isRunning: isRunning)), "running": .boolean(isRunning)]
    }

    private func runState(isRunning: Bool) async -> String {
        if isRunning { return "running" }
        if let incoming, await !incoming.snapshot().hasStarted { return "inmigrate" }
        guard let outgoing else { return incoming == nil && ownWorkload == nil ? "prelaunch" : "paused" }
        switch await outgoing.snapshot().state {
        case .completed: return "postmigrate"
        case .device, .postcopyDevice, .postcopyActive, .postcopyPaused: return "finish-migrate"
        case .none, .setup, .active, .postcopyRecoverSetup, .postcopyRecover, .failed, .cancelling, .cancelled:
            return "paused"
        }
    }

    /// `query-migrate`.
    func queryMigrate() async -> JSONValue {
        if let outgoing { return await describe(outgoing) }
        if let incoming { return await describe(incoming) }
        return [:]
    }

    private func describe(_ session: SourceSession) async -> JSONValue {
        let snapshot = await session.snapshot()
        let pageSize = regions.map(\.pageSize).max() ?? 0
        let progress = snapshot.progress
        var answer: [String: JSONValue] = [
            "status": .string(snapshot.state.rawValue),
            "total-time": JSONValue(Int(snapshot.totalMicroseconds / 1000)),
            "ram": [
                "transferred": JSONValue(progress.bytesSent),
                "remaining": JSONValue((progress.pagesTotal - progress.pagesSent) * pageSize),
                "total": JSONValue(progress.pagesTotal * pageSize),
                "duplicate": JSONValue(progress.zeroPages),
                "normal": JSONValue(progress.bytesSent / max(1, pageSize)),
                "page-size": JSONValue(pageSize),
                "postcopy-requests": JSONValue(progress.requests),
            ],
        ]
        answer["error-desc"] = snapshot.failureReason.map { .string($0) }
        return .object(answer)
    }

    private func describe(_ session: DestinationSession) async -> JSONValue {
        let snapshot = await session.snapshot()
        var answer: [String: JSONValue] = [
            "status": .string(snapshot.state.rawValue),
            "total-time": JSONValue(Int(snapshot.totalMicroseconds / 1000)),
        ]
        // Only in this state a source can still come: nobody is to dial a migration that has begun or ended.
        if snapshot.state == .setup, case .tcp(let host, let port) = session.acceptor.address {
            answer["socket-address"] = [["type": "inet", "host": .string(host), "port": .string("\(port)")]]
        }
        answer["error-desc"] = snapshot.failureReason.map { .string($0) }
        return .object(answer)
    }
}

import Orchestration
import Telemetry

/// Moves a workload between two agents of its own on this host, while it runs.
struct LocalMigration {
    /// Arguments of `pageferry source`.
    var source: [String]
    /// Arguments of `pageferry destination`.
    var destination: [String]

    /// How long the workload is seen to run before and after it moves, in milliseconds.
    private static let runTime = 200

    /// Moves it and checks every page where it runs then.
    ///
    /// - Parameter whenMoved: called with both agents while they are there still.
    func run(whenMoved: ([ChildAgent]) throws -> Void = { _ in }) async throws -> Report {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let destinationAgent = try ChildAgent("destination", at: "\(folder.path)/destination.sock", destination)
        defer { destinationAgent.end() }
        let sourceAgent = try ChildAgent("source", at: "\(folder.path)/source.sock", source)
        defer { sourceAgent.end() }
        let destination = try await destinationAgent.connect()
        let source = try await sourceAgent.connect()
        let migration = Migration(source: source, destination: destination)

        try await letRun(source)
        try await migration.begin()
        async let sides = migration.end()
        let watching = Task { await Progress().watch(migration) }
        let ended = try await sides
        watching.cancel()
        await watching.value

        guard let holder = ended.holder(of: migration) else {
            let sides = await migration.sides()
            return Report(source: sides.source, destination: sides.destination, verify: Report.Verify())
        }
        try await letRun(holder)
        try whenMoved([sourceAgent, destinationAgent])
        // Before the workload is stopped for the check: where it runs is part of the report.
        let sidesThen = await migration.sides()
        return Report(source: sidesThen.source, destination: sidesThen.destination, verify: try await holder.verify())
    }

    /// Lets the workload run for a while, and until it has done something or has ended.
    private func letRun(_ agent: AgentClient) async throws {
        let before = try await agent.report().operations
        var report: AgentReport
        repeat {
            try await Task.sleep(for: .milliseconds(LocalMigration.runTime))
            report = try await agent.report()
        } while report.operations == before && report.runsHere
    }
}

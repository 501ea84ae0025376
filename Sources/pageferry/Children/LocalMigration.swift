import Orchestration
import Telemetry

/// Moves a running workload between two agents that it starts on this host.
struct LocalMigration {
    let source: SourceCommand
    let destination: DestinationCommand

    /// How long the workload runs before and after the migration, in milliseconds.
    private static let runTime = 200

    /// Moves the workload, and checks every page on the side that runs it afterwards.
    ///
    /// - Parameter whenMoved: called with both agents after the migration, before the pages are checked.
    func run(whenMoved: ([ChildAgent]) throws -> Void = { _ in }) async throws -> Report {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let destinationAgent = try ChildAgent(destination, at: "\(folder.path)/destination.sock")
        defer { destinationAgent.end() }
        let sourceAgent = try ChildAgent(source, at: "\(folder.path)/source.sock")
        defer { sourceAgent.end() }
        let destination = try await destinationAgent.connect()
        let source = try await sourceAgent.connect()
        let migration = Migration(source: source, destination: destination)

        try await letRun(source)
        try await migration.begin()
        let ended = try await ProgressLine().watch(migration) { try await migration.end() }

        guard let holder = ended.holder(of: migration) else {
            let sides = try await migration.sides()
            return Report(source: sides.source, destination: sides.destination, verify: Report.Verify())
        }
        try await letRun(holder)
        try whenMoved([sourceAgent, destinationAgent])
        // Read before the check stops the workload, since the report says which side runs it.
        let sidesThen = try await migration.sides()
        return Report(source: sidesThen.source, destination: sidesThen.destination, verify: try await holder.verify())
    }

    /// Waits for ``runTime``, and repeats that until the workload has done an operation or has ended.
    private func letRun(_ agent: AgentClient) async throws {
        let before = try await agent.report().operations
        var report: AgentReport
        repeat {
            try await Task.sleep(for: .milliseconds(LocalMigration.runTime))
            report = try await agent.report()
        } while report.operations == before && report.runsHere
    }
}

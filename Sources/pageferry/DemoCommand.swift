import ArgumentParser
import Foundation
import Orchestration
import Telemetry

/// Moves a workload between two agents of its own, and reports.
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Move a workload between two processes on this host while it runs, check every page, and report.",
        discussion: """
            Example:

              pageferry demo --workload kv --load access.log --memory 64MiB
            """
    )

    @OptionGroup var workloadOptions: WorkloadOptions
    @OptionGroup var pushOptions: PushOptions
    @OptionGroup var faultOptions: FaultOptions

    @Flag(help: "Print the report as one JSON object.")
    var json = false

    @Option(help: ArgumentHelp("Give up when the migration has not ended by then, such as 60s.", valueName: "time"))
    var timeout = TimeSpan(nanoseconds: 600_000_000_000)

    /// How long the workload is seen to run before and after it moves, in milliseconds.
    private static let runTime = 200

    func run() async throws {
        let report = try await withTimeout { try await self.move() }
        print(try json ? report.json() : ReportTable(report).text)
        if report.result != .completed { throw ExitCode(1) }
    }

    private func withTimeout(_ body: @escaping @Sendable () async throws -> Report) async throws -> Report {
        return try await withThrowingTaskGroup(of: Report.self) { group in
            group.addTask(operation: body)
            group.addTask {
                try await Task.sleep(for: timeout.duration)
                throw Failure("the migration did not end within \(timeout); try less --memory or a longer --timeout")
            }
            defer { group.cancelAll() }
            guard let report = try await group.next() else { throw CancellationError() }
            return report
        }
    }

    private func move() async throws -> Report {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let destinationAgent = try ChildAgent(
            "destination",
            in: folder.path,
            workloadOptions.hookPermissions + faultOptions.arguments
        )
        defer { destinationAgent.end() }
        let sourceAgent = try ChildAgent("source", in: folder.path, workloadOptions.arguments + pushOptions.arguments)
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
        // Before the workload is stopped for the check: where it runs is part of the report.
        let sidesThen = await migration.sides()
        return Report(source: sidesThen.source, destination: sidesThen.destination, verify: try await holder.verify())
    }

    /// Lets the workload run for a while, and until it has done something.
    private func letRun(_ agent: AgentClient) async throws {
        let before = try await agent.report().operations
        repeat {
            try await Task.sleep(for: .milliseconds(DemoCommand.runTime))
        } while try await agent.report().operations == before
    }
}

import ArgumentParser
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
    @OptionGroup var serialOption: SerialOption

    @Flag(help: "Print the report as one JSON object.")
    var json = false

    @Option(help: ArgumentHelp("Give up when the migration has not ended by then, such as 60s.", valueName: "time"))
    var timeout = TimeSpan(nanoseconds: 600_000_000_000)

    func validate() throws {
        try serialOption.validate(for: workloadOptions.workload)
        if case .kvm = workloadOptions.workload, faultOptions.inThread {
            throw ValidationError("--in-thread is for built-in workloads; the kernel touches memory for --workload kvm")
        }
    }

    func run() async throws {
        let migration = LocalMigration(
            source: workloadOptions.arguments + pushOptions.arguments + serialOption.arguments,
            destination: workloadOptions.permissions + faultOptions.arguments + serialOption.arguments
        )
        let report = try await withTimeout { try await migration.run() }
        if json { Terminal.show(json: try report.json()) } else { Terminal.show(ReportTable(report).lines) }
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
}

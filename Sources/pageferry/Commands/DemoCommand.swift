import ArgumentParser
import Telemetry

/// Moves a workload between two agents that it starts on this host.
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Move a running workload between two processes on this host, check every page, and print a report.",
        discussion: """
            Example:

              pageferry demo --workload kv --load access.log --memory 64MiB
            """
    )

    @OptionGroup var workloadOptions: WorkloadOptions
    @OptionGroup var pushOptions: PushOptions
    @OptionGroup var faultOptions: FaultOptions
    @OptionGroup var serialOption: SerialOption
    @OptionGroup var pollOption: PollOption

    @Flag(help: "Print the report as one JSON object.")
    var json = false

    @OptionGroup var folder: ReportFolder

    @Option(
        help: ArgumentHelp(
            "Fail if the migration has not ended within this time, such as 60s (default: 600s).",
            valueName: "time"
        ),
        transform: readTime
    )
    var timeout = TimeSpan(nanoseconds: 600_000_000_000)

    @OptionGroup var quietOption: QuietOption

    @OptionGroup var configurationOptions: ConfigurationOptions

    func validate() throws {
        guard timeout.nanoseconds > 0 else {
            throw ValidationError("--timeout must be more than 0, such as 60s; leave it out for 600s")
        }
        try serialOption.validate(for: workloadOptions.workload)
        if case .kvm = workloadOptions.workload, faultOptions.inThread {
            throw ValidationError("--in-thread is for built-in workloads; the kernel touches the memory of a kvm guest")
        }
    }

    /// The migration between agents that have the options of this command.
    func migration() throws -> LocalMigration {
        var (source, destination) = (try SourceCommand.withDefaults(), try DestinationCommand.withDefaults())
        source.workloadOptions = workloadOptions
        source.pushOptions = pushOptions
        source.serialOption = serialOption
        source.agentOptions.service.pollOption = pollOption
        destination.faultOptions = faultOptions
        destination.serialOption = serialOption
        destination.agentOptions.service.pollOption = pollOption
        destination.arrivalOptions.allow(workloadOptions.device)
        return LocalMigration(source: source, destination: destination)
    }

    func run() async throws {
        try folder.prepare()
        quietOption.apply()
        let migration = try migration()
        let report = try await withTimeout { try await migration.run() }
        try folder.write(report)
        if json { Terminal.show(json: try report.json()) } else { Terminal.show(ReportTable(report).lines) }
        if report.result != .completed { throw ExitCode(1) }
    }

    private func withTimeout(_ body: @escaping @Sendable () async throws -> Report) async throws -> Report {
        return try await withThrowingTaskGroup(of: Report.self) { group in
            group.addTask(operation: body)
            group.addTask {
                try await Task.sleep(for: timeout.duration)
                throw Failure("the migration did not end within \(timeout); try a longer --timeout, or less to move")
            }
            defer { group.cancelAll() }
            guard let report = try await group.next() else { throw CancellationError() }
            return report
        }
    }
}

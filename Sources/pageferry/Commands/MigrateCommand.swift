import ArgumentParser
import Compression
import Foundation
import LinuxSystem
import Orchestration
import Telemetry

/// Moves a workload from one agent to another.
struct MigrateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "migrate",
        abstract: "Move a workload from one agent to another, and print a report.",
        discussion: """
            The control sockets of both agents must be reachable from this host. With --guest, the command starts the \
            source agent for a Firecracker microVM on this host. If the command is interrupted, the agents continue: \
            run the command again to follow the migration.

            Examples:

              pageferry migrate --source /run/a.sock --destination /run/b.sock \\
                --uri tcp:10.0.0.2:7000
              pageferry migrate --guest firecracker:/run/vm.sock \\
                --destination /tmp/b.sock --uri tcp:10.0.0.2:7000
            """
    )

    @Option(
        help: ArgumentHelp("The control socket of the agent that has the workload.", valueName: "address"),
        transform: readControl
    )
    var source: SocketAddress?

    @Option(
        help: ArgumentHelp(
            "Instead of --source: the API socket of a Firecracker microVM on this host.",
            valueName: "firecracker:api-socket"
        ),
        transform: readGuest
    )
    var guest: GuestOption?

    @Option(
        help: ArgumentHelp("The control socket of the agent that receives the workload.", valueName: "address"),
        transform: readControl
    )
    var destination: SocketAddress

    @Option(
        help: ArgumentHelp(
            "The address at which the source reaches the destination (default: the address where it listens).",
            valueName: "tcp:host:port"
        ),
        transform: readAddress
    )
    var uri: SocketAddress?

    @Option(
        help: ArgumentHelp(
            "How the source compresses the pages that it pushes, from this migration on (default: as the source was told).",
            valueName: "none|lz4|zstd|auto"
        )
    )
    var compress: PushCompression?

    @Flag(help: "After the migration, stop the workload, check every page, and resume the workload.")
    var verify = false

    @Flag(
        help: "Return as soon as the destination has accepted the migration, and print how to follow it."
    )
    var detach = false

    @Flag(help: "Print the report as one JSON object.")
    var json = false

    @OptionGroup var folder: ReportFolder

    @OptionGroup var quietOption: QuietOption

    @OptionGroup var configurationOptions: ConfigurationOptions

    func validate() throws {
        guard source != destination else {
            throw ValidationError("\(destination) is named as source and as destination; name two agents")
        }
        let early = [verify ? "--verify" : nil, json ? "--json" : nil, folder.report.map { _ in "--report" }]
        if detach, let option = early.compactMap(\.self).first {
            throw ValidationError("--detach returns before there is anything to report or to check: drop \(option)")
        }
        guard (source == nil) != (guest == nil) else {
            throw ValidationError("give an agent with a workload as --source, or a microVM as --guest, and not both")
        }
        if guest != nil, verify {
            throw ValidationError("a microVM does not know what its pages should hold; drop --verify")
        }
        if let uri, case .unix = uri {
            throw ValidationError("a source reaches a destination by TCP only, not at \(uri); give tcp:HOST:PORT")
        }
        if let uri { try requireDialable(uri) }
        if let uri { try requirePort(uri) }
    }

    func run() async throws {
        try folder.prepare()
        quietOption.apply()
        if let source { return try await move(AgentClient(source)) }
        guard let guest else { return }
        let agent = try await GuestAgent(of: guest)
        defer { agent.leave() }
        try await move(agent.client)
    }

    private func tell(_ notice: Migration.Notice, of source: SocketAddress) {
        let what: String
        switch notice {
        case .paused(let reason):
            return Terminal.tell("pageferry: the migration is paused, and the agents try to resume it: \(reason)")
        case .resumed: return Terminal.tell("pageferry: pages move again")
        case .awaitsCont: what = "everything is ready: the workload starts on pageferry cont \(destination)"
        case .silent(let agent):
            what = "the agent at \(agent) has not answered for 5 s; check if its process is stopped or busy"
        case .startRefused(let reason):
            what =
                "\(reason); the workload runs nowhere until pageferry cont \(destination), or pageferry cancel \(source)"
        }
        Terminal.say("pageferry: \(what)")
    }

    private func show(_ report: Report) throws {
        // The line on standard error has the reason of a failure.
        if json {
            Terminal.show(json: try report.json())
        } else {
            Terminal.show(ReportTable(report, namesReason: false).lines)
        }
    }

    /// Moves the workload of an agent.
    private func move(_ source: AgentClient) async throws {
        let migration = try await Migration(
            source: source,
            destination: AgentClient(destination),
            compression: compress
        )
        if verify {
            for agent in [migration.source, migration.destination] where try await agent.report().canVerify == false {
                throw Failure(
                    "a workload at \(agent.address) does not know what its pages should hold; migrate without --verify"
                )
            }
        }
        let follow = "pageferry status \(source.address) \(destination)"
        EndSignals.leave(
            saying: "pageferry: the agents continue what has begun: follow it with \(follow), end it with pageferry "
                + "cancel \(source.address), or run this migrate again"
        )
        let beginning = try await migration.begin(at: uri)
        if beginning == .completedBefore {
            // A migrate that was run again, after an earlier one died, still reports the migration.
            let report = detach ? "" : "; the report describes that migration"
            Terminal.say("pageferry: the workload has moved to \(destination) before, and nothing was moved\(report)")
        }
        EndSignals.leave(
            saying: "pageferry: the agents continue the migration: follow it with \(follow), or end it with pageferry "
                + "cancel \(source.address) unless the workload has started on the destination"
        )
        if detach {
            do {
                try await migration.accepted()
            } catch let failure as AgentFailure {
                guard let address = await MigrationEnd.whereToDial(migration, uri) else { throw failure }
                throw AgentFailure(
                    agent: failure.agent,
                    command: failure.command,
                    reason: "\(address.reason(of: failure.reason)); \(address.remedy)"
                )
            }
            guard beginning == .underWay else { return }
            return Terminal.show(["the workload moves to \(destination): follow it with \(follow)"])
        }
        let sides = try await ProgressLine().watch(migration) {
            try await migration.end(telling: { tell($0, of: source.address) })
        }
        var checked = Report.Verify()
        var problem: (any Error)?
        if verify, let holder = sides.holder(of: migration) {
            do {
                checked = try await holder.verify()
            } catch {
                // The migration itself has ended, so its report is printed before this error.
                problem = error
            }
        }
        let report = Report(of: sides, verify: checked)
        try folder.write(report)
        try show(report)
        if let line = await MigrationEnd(report, sides, migration).line(dialing: uri) {
            Terminal.say("pageferry: \(line)")
        }
        if let problem { throw problem }
        if report.result != .completed || report.error != nil { throw ExitCode(1) }
    }
}

extension Report {
    fileprivate init(of sides: Migration.Sides, verify: Verify) {
        self.init(source: sides.source, destination: sides.destination, gone: sides.gone, verify: verify)
    }
}

import ArgumentParser
import Foundation
import LinuxSystem
import Orchestration
import Telemetry

/// Moves a workload from one agent to another.
struct MigrateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "migrate",
        abstract: "Move a workload from one agent to another, and report.",
        discussion: """
            Both agents' control sockets must be in reach. A microVM of Firecracker on this host needs no agent before:
            one is started for it. Examples:

              pageferry migrate --source /run/a.sock --destination /run/b.sock --uri tcp:10.0.0.2:7000
              pageferry migrate --guest firecracker:/run/vm.sock --destination /tmp/b.sock --uri tcp:10.0.0.2:7000
            """
    )

    @Option(
        help: ArgumentHelp("The control socket of the agent with the workload.", valueName: "address"),
        transform: readAddress
    )
    var source: SocketAddress?

    @Option(
        help: ArgumentHelp(
            "Instead of --source: a microVM of Firecracker on this host.",
            valueName: "firecracker:api-socket"
        ),
        transform: readGuest
    )
    var guest: GuestOption?

    @Option(
        help: ArgumentHelp("The control socket of the agent that is to have it.", valueName: "address"),
        transform: readAddress
    )
    var destination: SocketAddress

    @Option(
        help: ArgumentHelp(
            "Where the source is to find the destination; where it listens if left out.",
            valueName: "tcp:host:port"
        ),
        transform: readAddress
    )
    var uri: SocketAddress?

    @Flag(help: "Stop the workload where it then is, check every page, and let it go on.")
    var verify = false

    @Flag(help: "Return as soon as the migration is under way; status tells the rest.")
    var detach = false

    @Flag(help: "Print the report as one JSON object.")
    var json = false

    func validate() throws {
        guard (source == nil) != (guest == nil) else {
            throw ValidationError("say what is to move: --source with an agent, or --guest")
        }
        if guest != nil, verify {
            throw ValidationError("a microVM does not know what its pages should hold: no --verify")
        }
        if let uri, case .unix = uri {
            throw ValidationError("a source reaches a destination by TCP only, not at \(uri); give tcp:HOST:PORT")
        }
    }

    func run() async throws {
        if let source { return try await move(AgentClient(source)) }
        guard let guest else { return }
        let agent = try await GuestAgent(of: guest)
        defer { agent.leave() }
        try await move(agent.client)
    }

    /// Moves what an agent has.
    private func move(_ source: AgentClient) async throws {
        let migration = try await Migration(source: source, destination: AgentClient(destination))
        if verify {
            for agent in [migration.source, migration.destination] where try await agent.report().canVerify == false {
                throw Failure(
                    "a workload at \(agent.address) does not know what its pages should hold; migrate without --verify"
                )
            }
        }
        if let uri, let listening = try await migration.destination.listeningAddress(), listening != uri.description {
            // A tunnel, say; otherwise this is the reason why nobody is there.
            Terminal.say(
                "pageferry: the destination listens at \(listening), and is looked for at \(uri); if that does not lead "
                    + "there, start the destination again with --listen"
            )
        }
        try await migration.begin(at: uri)
        if detach { return }
        let watching = Task { await Progress().watch(migration) }
        let sides = try await migration.end()
        watching.cancel()
        await watching.value
        var checked = Report.Verify()
        var problem: (any Error)?
        if verify, let holder = sides.holder(of: migration) {
            do {
                checked = try await holder.verify()
            } catch {
                // The migration itself has ended, which is told all the same.
                problem = error
            }
        }
        let report = Report(source: sides.source, destination: sides.destination, gone: sides.gone, verify: checked)
        if json { Terminal.show(json: try report.json()) } else { Terminal.show(ReportTable(report).lines) }
        if let problem { throw problem }
        if report.result == .paused {
            Terminal.say(
                "pageferry: the agents go on without this command; run migrate again to see what comes of it"
            )
        }
        if report.result != .completed { throw ExitCode(1) }
    }
}

import ArgumentParser
import Identity
import LinuxSystem
import Orchestration
import QMP
import Telemetry

/// Takes a workload back during its migration.
struct CancelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel",
        abstract: "Take a workload back, unless it has started on the destination.",
        discussion: """
            Give the source's control socket. The command returns when the workload runs on the source again. It fails \
            if the workload runs on the destination, or if that is unknown until the link is back (see recover). With \
            the destination's control socket, it ends the migration there and frees the destination; this is refused \
            if all devices have loaded and the link is up.

            If no migration is under way at the agent, there is nothing to cancel: the command says so and exits with \
            status 0, at a source and at a destination.

            Examples:

              pageferry cancel /run/a.sock
              pageferry cancel --workload-is-lost /run/b.sock
            """
    )

    @Argument(
        help: ArgumentHelp("The control socket of the source, or of the destination.", valueName: "address"),
        transform: readControl
    )
    var agent: SocketAddress

    @Flag(
        help: """
            State that the destination is gone for good and never executed the workload: the source takes the workload \
            back. Be sure: if the workload has started there, it then runs on both sides. A process or microVM runs on \
            when its agent has ended: look for it there. Refused with a run lease: run cancel without this option, and \
            the lease decides.
            """
    )
    var destinationIsGone = false

    @Flag(
        help:
            """
            State that the other side is gone for good after the workload has executed on the destination: the migration \
            fails, and neither side runs the workload. A destination that waits for pages ends the workload and exits.
            """
    )
    var workloadIsLost = false

    @OptionGroup var quietOption: QuietOption

    @OptionGroup var configurationOptions: ConfigurationOptions

    func validate() throws {
        guard !(destinationIsGone && workloadIsLost) else {
            throw ValidationError("the workload has executed on the destination or it has not: give one of the two")
        }
    }

    func run() async throws {
        quietOption.apply()
        let agent = try await AgentClient(agent)
        if destinationIsGone || workloadIsLost {
            let report = try await agent.report()
            if report.source == nil, report.destination != nil {
                guard workloadIsLost else { throw Failure(swapped(agent.address, report)) }
                try await say("pageferry-source-gone", to: agent)
                Terminal.show(["the workload \(report.workload) at \(agent.address) is ended, and its agent exits"])
            } else {
                try await say("pageferry-destination-gone", ["has-run": .boolean(workloadIsLost)], to: agent)
                Terminal.show([await gone(agent)])
            }
        } else {
            try await takeBack(agent)
        }
        await agent.close()
    }

    /// Describes where the workload is after `--destination-is-gone` or `--workload-is-lost`.
    private func gone(_ source: AgentClient) async -> String {
        guard destinationIsGone else {
            return "the migration at \(source.address) is given up: the workload is lost, and runs nowhere"
        }
        // The command has worked, even if its agent has exited since.
        let place = (try? await source.report()).map { CancelCommand.place($0, source.address) }
        return
            "\(place ?? "the workload is back"); if the destination's agent comes back, end its process before it runs the "
            + "workload too"
    }

    /// Makes the error of `--destination-is-gone` at a destination, which answers.
    private func swapped(_ destination: SocketAddress, _ report: AgentReport) -> String {
        let started: Set<MigrationState> = [
            .postcopyActive, .postcopyPaused, .postcopyRecoverSetup, .postcopyRecover, .completed,
        ]
        let hasStarted = report.states.last.map(started.contains) ?? false
        let word = hasStarted ? "--workload-is-lost" : "--destination-is-gone"
        let lost =
            report.states.last == .postcopyPaused
            ? "; if the source is gone for good instead: pageferry cancel --workload-is-lost \(destination)" : ""
        return
            "\(destination) is the destination, and it answers\(hasStarted ? ": the workload has started there" : ""); "
            + "once this agent is gone for good: pageferry cancel \(word) SOURCE\(lost)"
    }

    /// Where a source's workload is after its migration has ended.
    private static func place(_ report: AgentReport, _ source: SocketAddress) -> String {
        "the workload \(report.workload) \(report.runsHere ? "runs at \(source)" : "is at \(source), stopped as before")"
    }

    private func say(_ command: String, _ arguments: [String: JSONValue] = [:], to agent: AgentClient) async throws {
        let follow = "pageferry status \(agent.address)"
        try await LongWait.tell(
            "cancel waits until the link that is being made, or the run lease, decides where the workload runs: "
                + follow,
            interrupted: "the agent at \(agent.address) carries the command out when it can: follow it with \(follow)"
        ) {
            _ = try await agent.execute(command, arguments)
        }
    }

    private func takeBack(_ agent: AgentClient) async throws {
        let follow = "pageferry status \(agent.address)"
        let before = try await agent.report()
        try await LongWait.tell(
            "cancel waits until the workload runs on the source again, or the destination reports a start: \(follow)",
            interrupted: "the agent at \(agent.address) keeps the request to cancel: follow it with \(follow)"
        ) {
            _ = try await agent.execute("migrate_cancel")
        }
        let last = before.states.last ?? MigrationState.none
        guard before.isUnderWay == false else { return Terminal.show([await done(agent, before)]) }
        let isOver = [.completed, .failed, .cancelled].contains(last)
        let was = isOver ? " (the last one is \(last))" : ""
        Terminal.say("pageferry: no migration is under way at \(agent.address)\(was), so there is nothing to cancel")
    }

    /// What a cancel has done.
    ///
    /// - Parameter before: the agent's report before the cancel.
    private func done(_ agent: AgentClient, _ before: AgentReport) async -> String {
        guard before.source != nil else {
            return "the migration is cancelled at \(agent.address): the workload stays at its source"
        }
        // The command has worked, even if its agent has exited since.
        guard let report = try? await agent.report() else { return "the migration at \(agent.address) is cancelled" }
        let end = report.states.last == .cancelled ? "cancelled" : "over"
        return "the migration is \(end): \(CancelCommand.place(report, agent.address))"
    }
}

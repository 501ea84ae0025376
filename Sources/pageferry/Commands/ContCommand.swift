import ArgumentParser
import Identity
import LinuxSystem
import Orchestration
import Telemetry

/// Starts a stopped workload.
struct ContCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cont",
        abstract: "Start or resume a workload, and wait until it runs.",
        discussion: """
            The command fails with the reason if the workload cannot run. At a destination, it waits until all devices \
            have loaded, and requests another start from the source if one was refused. While the \
            command waits, it prints the reason. If the workload runs but may soon wait for a page, since the link to \
            its source is broken, the command says so.

            Example:

              pageferry cont /run/b.sock
            """
    )

    @Argument(help: ArgumentHelp("The control socket of the agent.", valueName: "address"), transform: readControl)
    var agent: SocketAddress

    @OptionGroup var quietOption: QuietOption

    @OptionGroup var configurationOptions: ConfigurationOptions

    func run() async throws {
        quietOption.apply()
        let agent = try await AgentClient(agent)
        let follow = "pageferry status \(agent.address)"
        EndSignals.leave(saying: "pageferry: the agent at \(agent.address) continues: follow it with \(follow)")
        let telling = Task { await tellWaiting(agent) }
        defer { telling.cancel() }
        do {
            try await agent.execute("cont")
        } catch let refusal as AgentFailure {
            throw await Advice.added(to: refusal, of: agent, Advice.onCont)
        }
        // The command has worked, even if its agent has exited since.
        if let report = try? await agent.report(), let note = Advice.afterCont(agent.address, report) {
            Terminal.say("pageferry: \(note)")
        }
        await agent.close()
    }

    /// Prints what the command waits for, whenever that changes, until cancelled.
    private func tellWaiting(_ agent: AgentClient) async {
        var told: String?
        do {
            while true {
                try await Task.sleep(for: .seconds(1))
                let report = try await agent.report()
                try Task.checkCancellation()
                let reason = reason(of: report)
                if reason != told { Terminal.tell("pageferry: cont waits: \(reason)") }
                told = reason
            }
        } catch {
            // Cancelled, or the agent is gone, which the command itself reports.
        }
    }

    private func reason(of report: AgentReport) -> String {
        switch report.states.last {
        case .setup: "no source has connected to \(agent) yet"
        case .active: "the source has not begun the switchover yet"
        case .postcopyDevice:
            report.error.map { "another start is requested; the last one was refused: \($0)" }
                ?? "devices are loading, or the start is being prepared"
        default: "the start has not completed yet"
        }
    }
}

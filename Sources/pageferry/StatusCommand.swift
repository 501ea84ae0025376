import ArgumentParser
import Foundation
import LinuxSystem
import Orchestration
import Telemetry

/// Says what agents do.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Say what agents do.",
        discussion: """
            An agent that does not answer in time is told on standard error, and the exit status is 1. Example:

              pageferry status /run/a.sock /run/b.sock
            """
    )

    @Argument(help: ArgumentHelp("The agents' control sockets.", valueName: "address"), transform: readAddress)
    var agents: [SocketAddress]

    @Flag(help: "Print a JSON object for each agent, a line each.")
    var json = false

    func run() async throws {
        var isComplete = true
        for address in agents {
            do {
                try await tell(address)
            } catch {
                // The others are told of all the same.
                Terminal.say("pageferry: \(error)")
                isComplete = false
            }
        }
        if !isComplete { throw ExitCode(1) }
    }

    /// How long an agent is waited for.
    private static let patience = Duration.seconds(5)

    private func tell(_ address: SocketAddress) async throws {
        let agent = try await AgentClient(address)
        let report = try await agent.report(within: StatusCommand.patience)
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            Terminal.show(json: String(decoding: try encoder.encode(report), as: UTF8.self))
        } else {
            Terminal.show(["\(address): \(line(report))"])
        }
        await agent.close()
    }

    private func line(_ report: AgentReport) -> String {
        var parts = ["migration \(report.states.last ?? "none")"]
        if !report.workload.isEmpty {
            let what = report.ended.map { "has ended: \($0)" } ?? "does not run here"
            parts.append("\(report.workload) \(report.runsHere ? "runs here" : what)")
            parts.append("\(report.operations) operations")
        }
        if let pages = report.destination?.pages, pages.total > 0 {
            parts.append("\(pages.resident) of \(pages.total) pages here")
        }
        if let error = report.error { parts.append(error) }
        return parts.joined(separator: ", ")
    }
}

import ArgumentParser
import Foundation
import Identity
import LinuxSystem
import Orchestration
import Telemetry

/// Prints the state of agents.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show where a workload runs, and the state of its migration, as each agent sees it.",
        discussion: """
            If an agent does not answer within 5 seconds, the command says so on standard error and exits with status \
            1. With --json, the object of such an agent holds its address and the error. The same holds if two of the \
            agents both run the workload of one migration: the line says how to stop one of them.

            Example:

              pageferry status /run/a.sock /run/b.sock
            """
    )

    @Argument(help: ArgumentHelp("The control sockets of the agents.", valueName: "address"), transform: readControl)
    var agents: [SocketAddress]

    @Flag(help: "Print one JSON object for each agent, each on its own line.")
    var json = false

    @OptionGroup var configurationOptions: ConfigurationOptions

    func run() async throws {
        var answers: [Answer] = []
        for address in agents {
            let answer = await ask(address)
            if let report = answer.report {
                // Objects are printed in the end, since their errors may depend on further agents.
                if !json { Terminal.show(["\(address): \(line(report, of: address))"]) }
            } else if let error = answer.error {
                Terminal.say("pageferry: \(error)")
            }
            answers.append(answer)
        }
        let contradictions = await findTwoRunners(in: &answers)
        if json { for answer in answers { try show(answer) } }
        for line in contradictions { Terminal.say("pageferry: \(line)") }
        for answer in answers { await answer.agent?.close() }
        if !contradictions.isEmpty || answers.contains(where: { $0.report == nil }) { throw ExitCode(1) }
    }

    /// How long an agent may take to answer.
    private static let patience = Duration.seconds(5)

    private func ask(_ address: SocketAddress) async -> Answer {
        do {
            return await ask(try await AgentClient(address))
        } catch {
            return Answer(address: address, error: "\(error)")
        }
    }

    private func ask(_ agent: AgentClient) async -> Answer {
        do {
            let report = try await agent.report(within: StatusCommand.patience)
            return Answer(address: agent.address, agent: agent, report: report, error: report.error)
        } catch {
            return Answer(address: agent.address, agent: agent, error: "\(error)")
        }
    }

    /// Finds agents that both run the workload of one migration, and adds that to their answers.
    ///
    /// - Returns: a line for each two such agents.
    private func findTwoRunners(in answers: inout [Answer]) async -> [String] {
        var lines: [String] = []
        for here in answers.indices {
            guard let source = answers[here].agent, answers[here].report?.source != nil else { continue }
            for there in answers.indices where answers[there].report?.destination != nil {
                guard twoRunners(answers[here], answers[there]) != nil else { continue }
                // The workload may have moved between the two reports, so the source is asked again.
                var again = await ask(source)
                guard let line = twoRunners(again, answers[there]) else { continue }
                lines.append(line)
                (again.error, again.alsoRunsAt) = (line, answers[there].address)
                (answers[there].error, answers[there].alsoRunsAt) = (line, answers[here].address)
                answers[here] = again
            }
        }
        return lines
    }

    private func twoRunners(_ source: Answer, _ destination: Answer) -> String? {
        guard let here = source.report, let there = destination.report else { return nil }
        return Advice.onTwoRunners((source.address, here), (destination.address, there))
    }

    /// What is known of an agent: its report, or an error if it does not answer.
    private struct Answer: Encodable {
        let address: SocketAddress
        var agent: AgentClient?
        var report: AgentReport?
        var error: String?
        /// Another agent that runs the workload of the same migration; nil if none is known.
        var alsoRunsAt: SocketAddress?

        private enum CodingKeys: CodingKey {
            case address, error, alsoRunsAt
        }

        func encode(to encoder: any Encoder) throws {
            try report?.encode(to: encoder)
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode("\(address)", forKey: .address)
            try container.encode(error, forKey: .error)
            try container.encodeIfPresent(alsoRunsAt.map { "\($0)" }, forKey: .alsoRunsAt)
        }
    }

    private func show(_ answer: Answer) throws {
        Terminal.show(json: try JSONLine.encode(answer))
    }

    /// The threads that wait, for the end of a part.
    private func waiting(_ threads: [Report.Thread]) -> String {
        let waiting = threads.filter { $0.waiting != nil }.map { "\($0.id)" }
        guard !waiting.isEmpty else { return "" }
        let named = waiting.prefix(4).joined(separator: ", ") + (waiting.count > 4 ? ", …" : "")
        return " (\(waiting.count == 1 ? "thread" : "threads") \(named))"
    }

    private func line(_ report: AgentReport, of address: SocketAddress) -> String {
        var parts = ["migration \(report.states.last ?? MigrationState.none)"]
        if report.destination != nil, report.states.last == .setup, report.isUnderWay == false {
            parts.append("waits for a source")
        }
        if !report.workload.isEmpty {
            let end = report.mayRunAlone == true ? "is out of this agent's reach" : "has ended"
            let rests = report.holdsWorkload ? "is stopped here: pageferry cont \(address)" : "does not run here"
            let what = report.ended.map { "\(end): \($0)" } ?? rests
            parts.append("\(report.workload) \(report.runsHere ? "runs here" : what)")
            // A microVM and an attached process do not count their operations.
            if report.operations > 0 { parts.append(counted(report.operations, "operation")) }
        }
        // The pages of a migration that has failed are not kept.
        let isOver = report.states.last == .failed || report.states.last == .cancelled
        if let pages = report.destination?.pages, pages.total > 0, !isOver {
            parts.append("\(pages.resident) of \(counted(pages.total, "page")) here")
        }
        if let arrived = report.destination, arrived.waitingFaults > 0 {
            let seconds = String(format: "%.1f", arrived.oldestFault / 1_000_000)
            let faults = counted(arrived.waitingFaults, "fault")
            let (wait, their) = arrived.waitingFaults == 1 ? ("waits", "its page") : ("wait", "their pages")
            parts.append("\(faults) \(wait) for \(their), the oldest for \(seconds) s\(waiting(arrived.threads ?? []))")
        }
        if report.destination?.awaitsCont == true { parts.append("everything is ready: waiting for pageferry cont") }
        if let error = report.error { parts.append(error) }
        if let leftover = report.leftover { parts.append(leftover) }
        return parts.joined(separator: ", ")
    }
}

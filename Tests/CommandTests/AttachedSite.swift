import Foundation
import Synchronization

/// A program of the folder of fixtures that attaches: COMMAND SOCKET runs|waits OPTIONS.
struct AttachedProgram {
    let command: [String]
    var options: [String] = []

    func with(_ option: String) -> AttachedProgram { AttachedProgram(command: command, options: options + [option]) }
}

/// Two hosts with agents, at which programs attach.
final class AttachedSite: Sendable {
    /// An agent, and the program that is attached to it.
    struct Side {
        let agent: AgentProcess
        let program: Running
    }

    enum Role: String { case runs, waits }

    let workspace: Workspace
    let hosts: TwoHosts
    private let started = Mutex<[Running]>([])

    /// Makes the hosts.
    ///
    /// - Parameter rate: the rate of their link, in tc's notation.
    init(rate: String = "2gbit") throws {
        workspace = try Workspace()
        hosts = try TwoHosts(rate: rate)
    }

    /// Starts an agent on the first host, and a program that attaches with its workload.
    func source(_ program: AttachedProgram, _ options: String...) throws -> Side {
        let agent = try start("source", "a", on: hosts.source, ["--insecure"] + options)
        _ = try agent.running.errorLine(holding: "waiting for a process at")
        let attached = try attach(program, .runs, to: agent)
        _ = try agent.running.line(holding: "ready")
        return Side(agent: agent, program: attached)
    }

    /// Starts an agent, and a program that attaches and waits for a workload.
    ///
    /// - Parameters:
    ///   - name: the agent's name in the workspace.
    ///   - host: the host; nil for the second one.
    func destination(_ name: String, _ program: AttachedProgram, on host: String? = nil) throws -> Side {
        let host = host ?? hosts.destination
        let address = host == hosts.source ? TwoHosts.sourceAddress : TwoHosts.destinationAddress
        let agent = try start("destination", name, on: host, ["--listen", "\(address):7000", "--insecure"])
        _ = try agent.running.line(holding: "ready")
        return Side(agent: agent, program: try attach(program, .waits, to: agent))
    }

    private func start(_ command: String, _ name: String, on host: String, _ options: [String]) throws -> AgentProcess {
        let socket = workspace.file(name)
        let arguments = [command, "--qmp", socket, "--attach", socket + ".attach", "--peer-timeout", "1s"] + options
        let running = try hosts.run(on: host, Executable.pageferry, arguments)
        started.withLock { $0.append(running) }
        return AgentProcess(running: running, socket: socket)
    }

    /// Starts a program, and waits until an agent has accepted it.
    func attach(_ program: AttachedProgram, _ role: Role, to agent: AgentProcess) throws -> Running {
        let arguments = program.command + [agent.socket + ".attach", role.rawValue] + program.options
        let running = try Running("/usr/bin/env", arguments)
        started.withLock { $0.append(running) }
        _ = try running.line(holding: "attached")
        return running
    }

    /// Moves a workload, checks it at its destination, and returns the report.
    ///
    /// - Parameter uri: where the destination shall listen; nil if it listens already.
    func move(from source: AgentProcess, to destination: AgentProcess, uri: String? = nil) throws -> Printed {
        let options = ["--json", "--verify"] + (uri.map { ["--uri", $0] } ?? [])
        let sockets = ["--source", source.socket, "--destination", destination.socket]
        let moved = try Executable.run(Executable.pageferry, ["migrate"] + sockets + options)
        guard moved.status == 0 else { throw TestFailure("\(moved)") }
        return try Printed(moved.output)
    }

    /// Waits until an agent reports a state of the migration.
    func wait(_ agent: AgentProcess, for state: String) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !agent.qmp("query-migrate").contains("\"\(state)\"") {
            guard Date() < deadline else { throw TestFailure("never \(state): \(try agent.status())") }
        }
    }

    /// Kills the agents and the programs that still run.
    func end() {
        for running in started.withLock({ $0 }) { running.end() }
    }
}

extension Running {
    /// The numbers at the ends of the lines that begin with `text`.
    func numbers(after text: String) -> [Int] { Running.numbers(after: text, in: outputText) }

    private static func numbers(after text: String, in output: String) -> [Int] {
        // The last line may be incomplete.
        output.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
            .filter { $0.hasPrefix(text + " ") }.compactMap { Int($0.split(separator: " ").last ?? "") }
    }

    /// Waits until the program prints a larger number after `text` than it has printed before, and returns the number.
    @discardableResult
    func nextNumber(after text: String) throws -> Int {
        let before = numbers(after: text).last ?? -1
        let output = try output(holding: "a number above \(before) after '\(text)'") { output in
            Running.numbers(after: text, in: output).last.map { $0 > before } ?? false
        }
        return Running.numbers(after: text, in: output).last ?? before
    }
}

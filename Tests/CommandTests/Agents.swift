import Foundation
import Testing

/// An agent that runs beside a test, controlled by its own client commands.
struct AgentProcess {
    let running: Running
    let socket: String

    /// Starts `pageferry source` and waits until its workload runs.
    static func source(
        in workspace: Workspace,
        on host: (hosts: TwoHosts, name: String)? = nil,
        _ options: String...
    ) throws -> AgentProcess {
        try source(in: workspace, on: host, options)
    }

    /// Starts `pageferry source` with options in an array and waits until its workload runs.
    static func source(
        in workspace: Workspace,
        on host: (hosts: TwoHosts, name: String)? = nil,
        _ options: [String]
    ) throws -> AgentProcess {
        try source(in: workspace, on: host, options: options)
    }

    /// Starts `pageferry source` and waits until its workload runs.
    static func source(
        in workspace: Workspace,
        on host: (hosts: TwoHosts, name: String)? = nil,
        options: [String]
    ) throws -> AgentProcess {
        let socket = workspace.file("a.sock")
        return try start(socket, host, ["source", "--qmp", socket] + options)
    }

    /// Starts `pageferry destination` and waits until it listens.
    static func destination(
        in workspace: Workspace,
        on host: (hosts: TwoHosts, name: String)? = nil,
        _ options: String...
    ) throws -> AgentProcess {
        try destination(in: workspace, on: host, options)
    }

    /// Starts `pageferry destination` with options in an array and waits until it listens.
    static func destination(
        in workspace: Workspace,
        on host: (hosts: TwoHosts, name: String)? = nil,
        _ options: [String]
    ) throws -> AgentProcess {
        let socket = workspace.file("b.sock")
        return try start(socket, host, ["destination", "--qmp", socket] + options)
    }

    private static func start(
        _ socket: String,
        _ host: (hosts: TwoHosts, name: String)?,
        _ arguments: [String]
    ) throws -> AgentProcess {
        let running =
            if let host {
                try host.hosts.run(on: host.name, Executable.pageferry, arguments)
            } else {
                try Running(Executable.pageferry, arguments)
            }
        do {
            _ = try running.line(holding: "ready")
            return AgentProcess(running: running, socket: socket)
        } catch {
            running.end()
            throw error
        }
    }

    /// The output of `pageferry status --json` about the agent.
    func status() throws -> String {
        let finished = try Executable.pageferry("status", socket, "--json")
        guard finished.status == 0 else { throw TestFailure("status: \(finished)") }
        return finished.output
    }

    /// Sends QMP commands one after the other, and returns the answer to the last.
    func qmp(_ commands: String...) throws -> String {
        var last = ""
        let client = try QMPLine(path: socket)
        for command in commands { last = try client.execute(command) }
        return last
    }

    func end() {
        running.end()
    }
}

extension AgentProcess {
    /// The address at which a destination listens now, for a client that has chosen it.
    func commandedAddress() throws -> String {
        let addresses: [[String: Any]] = try Printed(qmp("query-migrate")).value("return", "socket-address")
        return "tcp:127.0.0.1:\(try #require(addresses.first?["port"] as? String))"
    }

    /// The address at which a destination listens, from its `ready` line.
    func listeningAddress() throws -> String {
        let line = try running.line(holding: "listening at ")
        return try #require(line.components(separatedBy: "listening at ").last)
    }
}

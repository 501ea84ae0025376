import Foundation
import Testing

/// Migrations between two network namespaces over a link of limited rate.
@Suite("Two hosts")
struct TwoHostsTests {
    private let workspace: Workspace
    private let hosts: TwoHosts

    init() throws {
        workspace = try Workspace()
        hosts = try TwoHosts()
    }

    private func source(_ options: [String] = []) throws -> AgentProcess {
        let socket = workspace.file("a.sock")
        return try start(
            hosts.source,
            socket,
            ["source", "--qmp", socket, "--memory", "32MiB", "--threads", "2"] + options
        )
    }

    private func destination(_ options: [String] = []) throws -> AgentProcess {
        let socket = workspace.file("b.sock")
        let listen = "\(TwoHosts.destinationAddress):7000"
        return try start(
            hosts.destination,
            socket,
            ["destination", "--qmp", socket, "--listen", listen, "--insecure"] + options
        )
    }

    private func start(_ host: String, _ socket: String, _ arguments: [String]) throws -> AgentProcess {
        let running = try hosts.run(on: host, Executable.pageferry, arguments)
        do {
            _ = try running.line(holding: "ready")
        } catch {
            running.end()
            throw error
        }
        return AgentProcess(running: running, socket: socket)
    }

    private func migrate(_ source: AgentProcess, _ destination: AgentProcess) throws -> Running {
        try Running(
            Executable.pageferry,
            ["migrate", "--source", source.socket, "--destination", destination.socket, "--json"]
        )
    }

    /// Checks that the source's workload keeps running, and that every one of its pages is right.
    private func expectRunsOn(_ source: AgentProcess) throws {
        let before = try operations(source)
        let deadline = Date(timeIntervalSinceNow: 20)
        while try operations(source) == before, Date() < deadline {}
        #expect(try operations(source) > before)
        let verified = try source.qmp("stop", "pageferry-verify")
        let check = try Printed(verified)
        #expect(try check.number("return", "pages_checked") == 8192)
        #expect(try check.number("return", "corrupt") == 0)
    }

    private func operations(_ agent: AgentProcess) throws -> Double {
        try Printed(try agent.qmp("pageferry-report")).number("return", "operations")
    }

    private func states(_ agent: AgentProcess) throws -> [String] {
        try Printed(try agent.qmp("pageferry-report")).value("return", "states")
    }

    @Test("a network that is dead for less than --peer-timeout breaks no connection", .timeLimit(.minutes(2)))
    func deadNetwork() throws {
        let patience = ["--peer-timeout", "30s"]
        let source = try source(["--max-bandwidth", "1MiB"] + patience)
        let destination = try destination(patience)
        defer {
            source.end()
            destination.end()
        }
        let migrating = try migrate(source, destination)
        defer { migrating.end() }
        let deadline = Date(timeIntervalSinceNow: 20)
        while try states(destination).last != "postcopy-active" {
            guard Date() < deadline else { throw TestFailure("the switchover never came") }
        }
        for host in [hosts.source, hosts.destination] { try hosts.loseWhat(host) }
        // The network is dead for longer than the 5 s that the kernel waits for a peer by default.
        Thread.sleep(forTimeInterval: 9)
        for agent in [source, destination] { #expect(try states(agent).last == "postcopy-active") }
        for host in [hosts.source, hosts.destination] { try hosts.loseNothing(host) }
        _ = try source.qmp(
            "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"max-postcopy-bandwidth\":0}}"
        )
        let finished = try migrating.finish()
        #expect(finished.status == 0, "\(finished)")
        for agent in [source, destination] { #expect(try !states(agent).contains("postcopy-paused")) }
    }

    @Test("a workload moves from one host to the other", .timeLimit(.minutes(2)))
    func moves() throws {
        let (source, destination) = (try source(), try destination())
        defer {
            source.end()
            destination.end()
        }
        let migrating = try migrate(source, destination)
        defer { migrating.end() }
        let finished = try migrating.finish()
        #expect(finished.status == 0, "\(finished)")
        #expect(destination.running.errorText.contains("can read and write the workload's memory"))
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "completed")
        #expect(try report.value("runs_on") == "destination")
        let check = try Printed(try destination.qmp("stop", "pageferry-verify"))
        #expect(try check.number("return", "pages_checked") == 8192)
        #expect(try check.number("return", "corrupt") == 0)
    }

    @Test("a device that does not load leaves the workload on the source", .timeLimit(.minutes(2)))
    func deviceLoad() throws {
        let (source, destination) = (try source(["--device", "broken:load"]), try destination())
        defer {
            source.end()
            destination.end()
        }
        let migrating = try migrate(source, destination)
        defer { migrating.end() }
        let finished = try migrating.finish()
        #expect(finished.status == 1, "\(finished)")
        #expect(try Printed(finished.output).value("runs_on") == "source")
        #expect(try Array(states(source).suffix(2)) == ["postcopy-device", "failed"])
        try expectRunsOn(source)
    }

    @Test("a destination that dies before PONG leaves the workload on the source", .timeLimit(.minutes(2)))
    func destinationDies() throws {
        let (source, destination) = (try source(["--device", "slow:load=30"]), try destination())
        defer {
            source.end()
            destination.end()
        }
        let migrating = try migrate(source, destination)
        defer { migrating.end() }
        try waitForState("postcopy-device", of: source)
        destination.end()
        #expect(try migrating.finish().status == 1)
        #expect(try Array(states(source).suffix(2)) == ["postcopy-device", "failed"])
        try expectRunsOn(source)
    }

    @Test("a link that breaks before PONG leaves the workload on the source", .timeLimit(.minutes(2)))
    func linkBreaks() throws {
        let (source, destination) = (try source(["--device", "slow:load=30"]), try destination())
        defer {
            source.end()
            destination.end()
        }
        let migrating = try migrate(source, destination)
        defer { migrating.end() }
        try waitForState("postcopy-device", of: source)
        try hosts.cutLink()
        #expect(try migrating.finish().status == 1)
        #expect(try Array(states(source).suffix(2)) == ["postcopy-device", "failed"])
        try waitForState("failed", of: destination)
        // The destination waits for the next source.
        #expect(try destination.qmp("query-migrate").contains("socket-address"))
        try expectRunsOn(source)
    }

    private func waitForState(_ state: String, of agent: AgentProcess) throws {
        let deadline = Date(timeIntervalSinceNow: 20)
        while try states(agent).last != state {
            guard Date() < deadline else { throw TestFailure("the migration is \(try states(agent))") }
        }
    }
}

import Foundation
import Testing

/// Where a source finds its destination, if nobody says it, and where agents are controlled.
@Suite("An address that is left out", .timeLimit(.minutes(2)))
struct AddressTests {
    private func migrate(_ source: AgentProcess, _ destination: AgentProcess, _ options: String...) throws -> Finished {
        try Executable.run(
            Executable.pageferry,
            ["migrate", "--source", source.socket, "--destination", destination.socket] + options
        )
    }

    @Test(
        "is not taken from a destination that listens everywhere: migrate says which option names it",
        arguments: ["0.0.0.0:0", "[::]:0", "*:0"]
    )
    func everywhere(listen: String) throws {
        let workspace = try Workspace()
        let destination = try AgentProcess.destination(in: workspace, "--listen", listen, "--insecure")
        defer { destination.end() }
        let ready = try destination.running.line(holding: "listening at ")
        let port = try #require(ready.split(separator: ":").last)
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let refused = try migrate(source, destination)
        #expect(refused.status == 1, "\(refused)")
        #expect(refused.errors.split(separator: "\n").count == 1, "\(refused)")
        #expect(refused.errors.contains("name one that the source reaches: --uri tcp:HOST:\(port)"), "\(refused)")
        #expect(try source.qmp("query-migrate").contains("\"return\":{}"))
        let moved = try migrate(source, destination, "--uri", "tcp:127.0.0.1:\(port)", "--json")
        #expect(moved.status == 0, "\(moved)")
    }

    @Test("is no port of its loopback for a source on another host", arguments: [[], ["--listen", "127.0.0.1:0"]])
    func otherHost(options: [String]) throws {
        let (workspace, hosts) = (try Workspace(), try TwoHosts())
        let source = try AgentProcess.source(in: workspace, on: (hosts, hosts.source), ["--memory", "4MiB"])
        defer { source.end() }
        let destination = try AgentProcess.destination(
            in: workspace,
            on: (hosts, hosts.destination),
            ["--insecure"] + options
        )
        defer { destination.end() }
        let refused = try migrate(source, destination)
        #expect(refused.status == 1, "\(refused)")
        #expect(refused.errors.split(separator: "\n").count == 1, "\(refused)")
        #expect(refused.errors.contains(": --uri tcp:HOST:PORT"), "\(refused)")
        #expect(try source.qmp("query-migrate").contains("\"return\":{}"))
        #expect(try destination.qmp("query-migrate").contains("\"socket-address\"") == !options.isEmpty)
        guard options.isEmpty else { return }
        let moved = try migrate(source, destination, "--uri", "tcp:\(TwoHosts.destinationAddress):7000", "--json")
        #expect(moved.status == 0, "\(moved)")
    }

    @Test("of a second control socket is told with its port")
    func control() throws {
        let workspace = try Workspace()
        let agent = try AgentProcess.source(in: workspace, "--memory", "4MiB", "--qmp", "tcp:127.0.0.1:0")
        defer { agent.end() }
        let ready = try agent.running.line(holding: "ready random runs, controlled at unix:\(agent.socket) and tcp:")
        let address = try #require(ready.split(separator: " ").last)
        #expect(!address.hasSuffix(":0"))
        #expect(try Executable.pageferry("status", String(address)).status == 0)
    }
}

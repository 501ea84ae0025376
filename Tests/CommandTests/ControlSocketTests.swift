import Foundation
import Testing

/// Bad input on the control sockets of real agents, while a migration is under way.
@Suite("On a control socket")
struct ControlSocketTests {
    /// Bytes that are not a valid command, and the class of the error that answers them.
    private static let nonsense: [(bytes: [UInt8], errorClass: String)] =
        [
            ("hello\n", "GenericError"),
            ("{\"execute\":}\n", "GenericError"),
            ("{\"execute\":7}", "GenericError"),
            ("[\"execute\"]", "GenericError"),
            ("{\"execute\":\"stop\",\"execute\":\"stop\"}", "GenericError"),
            ("{\"execute\":\"migrate\",\"arguments\":[]}", "GenericError"),
            ("{\"execute\":\"migrate\",\"arguments\":{\"uri\":7}}", "GenericError"),
            ("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"127.0.0.1:1\"}}", "GenericError"),
            ("{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"127.0.0.1:0\"}}", "GenericError"),
            ("{\"execute\":\"migrate-start-postcopy\"}", "GenericError"),
            ("{\"execute\":\"qmp_capabilities\"}", "CommandNotFound"),
            ("{\"execute\":\"device_add\"}", "CommandNotFound"),
            (String(repeating: "[", count: 5000) + "\n", "GenericError"),
        ].map { (Array($0.utf8), $1) } + [
            (Array("{\"execute\":\"".utf8) + [0xC3, 0x28] + Array("\"}".utf8), "GenericError"),
            ([0xFF, 0x00, 0x0A], "GenericError"),
        ]

    @Test("bad input harms only its sender, and a migration that is under way continues", .timeLimit(.minutes(2)))
    func badInput() throws {
        let workspace = try Workspace()
        // The device takes 5 s to load, so that the migration lasts as long as the rest of the test.
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB", "--device", "slow:load=5")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace)
        defer { destination.end() }
        let sockets = ["--source", source.socket, "--destination", destination.socket]
        let migrating = try Running(Executable.pageferry, ["migrate", "--verify", "--json"] + sockets)
        defer { migrating.end() }
        let deadline = Date(timeIntervalSinceNow: 20)
        while try !destination.qmp("query-migrate").contains("postcopy-device") {
            guard Date() < deadline else { throw TestFailure("the devices never began to load") }
        }
        for agent in [source, destination] {
            try talkNonsense(at: agent.socket)
            try beRude(at: agent.socket)
            let mode = try FileManager.default.attributesOfItem(atPath: agent.socket)[.posixPermissions] as? Int
            #expect(mode == 0o600)
        }
        let finished = try migrating.finish()
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("runs_on") == "destination")
        #expect(try report.number("verify", "pages_checked") == 4096)
        #expect(try report.number("verify", "corrupt") == 0)
    }

    @Test("a port that every user of the host can reach causes a warning with advice", .timeLimit(.minutes(1)))
    func localUsers() throws {
        let workspace = try Workspace()
        let agent = try AgentProcess.destination(in: workspace, "--qmp", "tcp:127.0.0.1:0")
        defer { agent.end() }
        let line = try agent.running.errorLine(holding: "every user of this host can control this agent at tcp:")
        #expect(line.contains("use the unix: socket, which only its owner can open"))
        #expect(agent.running.errorText.split(separator: "\n").count { $0.contains("warning: ") } == 1)
    }

    private func talkNonsense(at path: String) throws {
        let early = try QMPLine(greetedAt: path)
        #expect(try early.execute("stop").contains("CommandNotFound"))
        let client = try QMPLine(path: path)
        for (bytes, errorClass) in ControlSocketTests.nonsense {
            try client.send(bytes)
            let answer = try client.answer()
            #expect(answer.contains("\"class\":\"\(errorClass)\""), "\(bytes): \(answer)")
        }
        #expect(try client.execute("{\"execute\":\"query-status\",\"id\":[1]}").contains("\"id\":[1]"))
    }

    /// A line of a megabyte, a hundred connections at once, and a client that sends without reading.
    private func beRude(at path: String) throws {
        let long = try QMPLine(path: path)
        // The server closes the connection before the whole line is sent.
        try? long.send(Array("{\"execute\":\"".utf8) + [UInt8](repeating: 0x61, count: 1 << 20))
        #expect(try long.answer().contains("longer than 65536 bytes"))
        let many = try (0..<100).map { _ in try QMPLine(greetedAt: path) }
        let deaf = try QMPLine(path: path)
        let commands = Array(String(repeating: "{\"execute\":\"query-commands\"}", count: 64).utf8)
        while (try? deaf.send(commands)) != nil {}
        #expect(try QMPLine(path: path).execute("query-status").contains("\"return\""))
        withExtendedLifetime(many) {}
    }
}

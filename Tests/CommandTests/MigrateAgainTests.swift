import Foundation
import Glibc
import Identity
import LinuxSystem
import PageProtocol
import Testing

@Suite("An attempt after another", .timeLimit(.minutes(2)))
struct MigrateAgainTests {
    private let workspace: Workspace

    init() throws {
        workspace = try Workspace()
    }

    private func wait(_ agent: AgentProcess, for state: String) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !agent.qmp("query-migrate").contains("\"\(state)\"") {
            guard Date() < deadline else { throw TestFailure("never \(state): \(try agent.qmp("query-migrate"))") }
        }
    }

    @Test("has a destination listen where it says, after one that named an address which leads nowhere")
    func listensAnew() throws {
        let hosts = try TwoHosts()
        let source = try AgentProcess.source(
            in: workspace,
            on: (hosts, hosts.source),
            ["--memory", "4MiB", "--insecure"]
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(
            in: workspace,
            on: (hosts, hosts.destination),
            ["--listen", "\(TwoHosts.destinationAddress):7000", "--insecure"]
        )
        defer { destination.end() }
        let there = try Executable.migrate(source, destination, "--uri", "tcp:\(TwoHosts.destinationAddress):7000")
        #expect(there.status == 0 && !there.errors.contains("the destination listens at"), "\(there)")
        // The loopback of the other host is not the source's.
        let wrong = try Executable.migrate(destination, source, "--uri", "tcp:127.0.0.1:7000")
        #expect(wrong.status == 1, "\(wrong)")
        #expect(!wrong.errors.contains("the destination listens at"), "\(wrong)")
        #expect(wrong.errors.contains("give --uri the address at which the source reaches"), "\(wrong)")
        let right = try Executable.migrate(destination, source, "--uri", "tcp:\(TwoHosts.sourceAddress):7000", "--json")
        #expect(right.status == 0, "\(right)")
        #expect(try Printed(right.output).value("runs_on") == "destination")
    }

    @Test("says where the destination listens only if the source has looked for it elsewhere in vain")
    func note() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "*:0", "--insecure")
        defer { destination.end() }
        let address = try destination.listeningAddress()
        let port = try #require(address.split(separator: ":").last)
        let nobody = try Executable.migrate(source, destination, "--uri", "tcp:127.0.0.1:1")
        #expect(nobody.status == 1, "\(nobody)")
        #expect(nobody.errors.contains("the destination listens at \(address)"), "\(nobody)")
        let unknown = try Executable.migrate(source, destination, "--uri", "tcp:no.such.host.invalid:7000")
        let last = unknown.errors.split(separator: "\n").last ?? ""
        #expect(unknown.status == 1 && last.count <= 200, "\(unknown)")
        #expect(last.contains("failed: cannot resolve the host 'no.such.host.invalid': Name or service not known; the"))
        let moved = try Executable.migrate(source, destination, "--uri", "tcp:127.0.0.1:\(port)")
        #expect(moved.status == 0 && !moved.errors.contains("the destination listens at"), "\(moved)")
    }

    @Test(
        "is prepared by one line that says why a migration failed, and what to do",
        arguments: [
            (["--device", "broken:load"], [], [], "cannot load device broken: ", "run this migrate again"),
            (["--device", "hook:/bin/true"], [], [], "allow it with --allow-hook", "run this migrate again"),
            (["--lease", "X/vm"], [], [], "start the destination with the source's --lease", "run this migrate again"),
            ([], [], ["--uri", "tcp:127.0.0.1:1"], "Connection refused", "the destination listens at tcp:127.0.0.1:"),
        ] as [([String], [String], [String], String, String)]
    )
    func reason(source: [String], destination: [String], migrate: [String], why: String, remedy: String) throws {
        let options = source.map { $0.replacing("X", with: workspace.path) }
        let source = try AgentProcess.source(in: workspace, ["--memory", "4MiB"] + options)
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, ["--listen", "127.0.0.1:0"] + destination)
        defer { destination.end() }
        let sockets = ["migrate", "--source", source.socket, "--destination", destination.socket]
        let failed = try Executable.run(Executable.pageferry, sockets + migrate)
        #expect(failed.status == 1, "\(failed)")
        let lines = failed.errors.split(separator: "\n").filter { $0.hasPrefix("pageferry: the migration failed: ") }
        #expect(lines.count == 1, "\(failed)")
        // The report leaves the reason to that line.
        #expect(failed.output.hasPrefix("failed: the workload runs on the source\n"), "\(failed)")
        if !migrate.isEmpty { #expect(lines.first.map { $0.count <= 200 } == true, "\(failed)") }
        for word in [why, remedy, "the workload runs on the source"] {
            #expect(lines.first?.contains(word) == true, "no '\(word)' in \(failed)")
        }
    }

    @Test("is not waited for in silence if an agent's process is stopped meanwhile")
    func stopped() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "64MiB", "--no-push", "--think-time", "1ms")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let sockets = ["--source", source.socket, "--destination", destination.socket]
        let migrating = try Running(Executable.pageferry, ["migrate"] + sockets)
        defer { migrating.end() }
        try wait(destination, for: "postcopy-active")
        kill(destination.running.pid, SIGSTOP)
        defer { kill(destination.running.pid, SIGCONT) }
        _ = try migrating.errorLine(holding: "the agent at unix:\(destination.socket) has not answered for 5 s")
    }

    @Test("names the way on if the destination was restarted after the workload had moved there")
    func restarted() throws {
        let source = try AgentProcess.source(
            in: workspace,
            "--memory",
            "64MiB",
            "--no-push",
            "--think-time",
            "1ms",
            "--recover-for",
            "0"
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let address = try destination.listeningAddress()
        #expect(try Executable.migrate(source, destination, "--detach").status == 0)
        try wait(source, for: "downtime")
        destination.end()
        try wait(source, for: "postcopy-paused")
        let again = try AgentProcess.destination(in: workspace, "--listen", String(address.dropFirst(4)))
        defer { again.end() }
        let lost = "if the destination was restarted or is gone for good: pageferry cancel --workload-is-lost unix:"
        let migrated = try Executable.migrate(source, again)
        #expect(migrated.status == 1 && migrated.errors.contains(lost + source.socket), "\(migrated)")
        #expect(!migrated.errors.contains("--destination-is-gone"), "\(migrated)")
        let recovered = try Executable.pageferry("recover", "--source", source.socket, "--uri", address)
        #expect(recovered.status == 1, "\(recovered)")
        #expect(recovered.errors.contains("--workload-is-lost unix:\(source.socket)"), "\(recovered)")
    }

    @Test("is prepared by a cancel, and a second cancel says that nothing is left")
    func cancelsTwice() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0", "--stopped")
        defer { destination.end() }
        #expect(try Executable.migrate(source, destination, "--detach").status == 0)
        try wait(source, for: "postcopy-active")
        let first = try Executable.pageferry("cancel", source.socket)
        #expect(first.status == 0 && first.errors.isEmpty, "\(first)")
        let second = try Executable.pageferry("cancel", source.socket)
        #expect(second.status == 0 && second.errors.contains("(the last one is cancelled), so there is nothing to"))
        let cont = try Executable.pageferry("cont", destination.socket)
        #expect(cont.status == 1 && cont.errors.contains("pageferry migrate --source SOURCE"), "\(cont)")
    }

    @Test("says that the workload has moved before, and fails if it is to go elsewhere")
    func completedBefore() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let address = try destination.listeningAddress()
        #expect(try Executable.migrate(source, destination).status == 0)
        try wait(source, for: "completed")
        for option in ["--detach", "--json"] {
            let again = try Executable.migrate(source, destination, option)
            #expect(again.status == 0, "\(again)")
            #expect(
                again.errors.contains("has moved to unix:\(destination.socket) before, and nothing was moved"),
                "\(again)"
            )
        }
        let elsewhere = try Executable.migrate(source, destination, "--uri", "tcp:127.0.0.1:1")
        #expect(elsewhere.status == 1 && elsewhere.output.isEmpty, "\(elsewhere)")
        #expect(
            elsewhere.errors.contains("has moved to \(address) before, and not to tcp:127.0.0.1:1; nothing was done"),
            "\(elsewhere)"
        )
    }

    @Test("names another address or destination than that of the migration which is under way")
    func underWay() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "64MiB", "--no-push", "--think-time", "1ms")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let address = try destination.listeningAddress()
        let otherWorkspace = try Workspace()
        let other = try AgentProcess.destination(in: otherWorkspace, "--listen", "127.0.0.1:0")
        defer { other.end() }
        #expect(try Executable.migrate(source, destination, "--detach", "--uri", address).status == 0)
        try wait(source, for: "postcopy-active")
        let elsewhere = try Executable.migrate(source, destination, "--uri", "tcp:127.0.0.1:1")
        #expect(elsewhere.status == 1, "\(elsewhere)")
        #expect(elsewhere.errors.contains("already moves to \(address), not to tcp:127.0.0.1:1"), "\(elsewhere)")
        let another = try Executable.migrate(source, other)
        #expect(another.status == 1, "\(another)")
        #expect(
            another.errors.contains(
                "the workload moves to \(address), to another destination than unix:\(other.socket)"
            ),
            "\(another)"
        )
        #expect(try Executable.migrate(source, destination, "--detach", "--uri", address).status == 0)
    }

    @Test("a cont that waits says for what")
    func contWaits() throws {
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let cont = try Running(Executable.pageferry, ["cont", destination.socket])
        defer { cont.end() }
        _ = try cont.errorLine(holding: "cont waits: no source has connected to unix:\(destination.socket) yet")
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        #expect(try Executable.migrate(source, destination).status == 0)
        #expect(try cont.finish().status == 0)
    }

    @Test("a refusal of the same reason is written once a minute, whichever port its peer comes from")
    func refusals() throws {
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let address = try SocketAddress(destination.listeningAddress())
        for _ in 0..<5 {
            let socket = try StreamSocket(connectingTo: address)
            try socket.setReceiveTimeout(seconds: 30)
            let hello = Hello(
                role: .source,
                rejoins: true,
                capabilities: .startResult,
                migration: .random(),
                instance: .random(),
                nonce: .zero,
                lease: .absent
            )
            try socket.send(ControlMessage.hello(hello).encode())
            var byte: UInt8 = 0
            _ = try withUnsafeMutableBytes(of: &byte) { try socket.receive(exactly: $0) }
        }
        destination.end()
        let lines = destination.running.errorText.split(separator: "\n")
        #expect(lines.count { $0.contains("refused a connection from 127.0.0.1:") } == 1, "\(lines)")
    }

    @Test("a process whose missing pages never come is ended on the operator's word")
    func attached() throws {
        let client = try workspace.compile("attach")
        let source = try AgentProcess.source(in: workspace, "--memory", "32MiB", "--seed", "7", "--no-push")
        defer { source.end() }
        let destination = try AgentProcess.destination(
            in: workspace,
            "--listen",
            "127.0.0.1:0",
            "--attach",
            workspace.file("attach.sock"),
            "--stopped"
        )
        defer { destination.end() }
        let attached = try Running(client, [workspace.file("attach.sock"), "7", String(32 << 20)])
        defer { attached.end() }
        #expect(try Executable.migrate(source, destination, "--detach").status == 0)
        try wait(source, for: "postcopy-active")
        source.end()
        #expect(try Executable.pageferry("cont", destination.socket).status == 0)
        try wait(destination, for: "postcopy-paused")
        let ended = try Executable.pageferry("cancel", destination.socket, "--workload-is-lost")
        #expect(ended.status == 0, "\(ended)")
        let gone = try destination.running.finish()
        #expect(gone.status == 1 && gone.errors.contains("the source is gone for good"), "\(gone)")
        #expect(try attached.finish(seconds: 20).status != 0)
    }
}

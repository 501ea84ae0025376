import Foundation
import Testing

@Suite("A command is answered with the real result")
struct AnswerCommandTests {
    private let workspace: Workspace

    init() throws {
        workspace = try Workspace()
    }

    @Test("migrate --detach to nobody fails with the reason", .timeLimit(.minutes(1)))
    func detachToNobody() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let nobody = try Executable.migrate(source, destination, "--detach", "--uri", "tcp:127.0.0.1:1")
        #expect(nobody.status == 1 && nobody.errors.contains("127.0.0.1:1: Connection refused"), "\(nobody)")
        let moved = try Executable.migrate(source, destination, "--detach")
        #expect(moved.status == 0, "\(moved)")
    }

    @Test("migrate moves to the agent that --destination names, whatever --uri says", .timeLimit(.minutes(1)))
    func wrongAddress() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let otherWorkspace = try Workspace()
        let other = try AgentProcess.destination(in: otherWorkspace, "--listen", "127.0.0.1:0")
        defer { other.end() }
        let wrong = try Executable.migrate(source, destination, "--uri", try other.listeningAddress())
        #expect(wrong.status == 1, "\(wrong)")
        #expect(wrong.errors.contains("another agent answers at tcp:"), "\(wrong)")
        #expect(try source.qmp("query-status").contains("\"running\""))
        // Both destinations wait still.
        let right = try Executable.migrate(source, other)
        #expect(right.status == 0, "\(right)")
        let back = try Executable.migrate(other, destination)
        #expect(back.status == 0, "\(back)")
    }

    @Test(
        "migrate from an agent to itself is refused, by name and by agent, also after a move",
        .timeLimit(.minutes(1))
    )
    func toItself() throws {
        let second = workspace.file("c.sock")
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB", "--qmp", second)
        defer { source.end() }
        let same = try Executable.pageferry("migrate", "--source", source.socket, "--destination", source.socket)
        #expect(same.status == 2 && same.errors.contains("name two agents"), "\(same)")
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        for isMoved in [false, true] {
            if isMoved { #expect(try Executable.migrate(source, destination).status == 0) }
            let itself = try Executable.pageferry("migrate", "--source", source.socket, "--destination", second)
            #expect(itself.status == 1 && itself.errors.contains("lead to the same agent"), "\(itself)")
        }
    }

    @Test("cancel with nothing under way says so, at any agent, and says what it has done", .timeLimit(.minutes(1)))
    func cancelsNothing() throws {
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0", "--stopped")
        defer { destination.end() }
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        func expectNothing(_ agent: AgentProcess) throws {
            let nothing = try Executable.pageferry("cancel", agent.socket)
            #expect(nothing.status == 0 && nothing.output.isEmpty, "\(nothing)")
            #expect(nothing.errors.contains("no migration is under way at unix:\(agent.socket)"), "\(nothing)")
            #expect(nothing.errors.contains("so there is nothing to cancel"), "\(nothing)")
        }
        try expectNothing(destination)
        try expectNothing(source)
        let address = try destination.listeningAddress()
        _ = try source.qmp("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"\(address)\"}}")
        try wait(destination, for: "active")
        let there = try Executable.pageferry("cancel", destination.socket)
        #expect(there.status == 0 && there.errors.isEmpty, "\(there)")
        #expect(
            there.output
                == "the migration is cancelled at unix:\(destination.socket): the workload stays at its source\n"
        )
        try wait(source, for: "failed")
        let moving = try Executable.migrate(source, destination, "--detach")
        #expect(moving.status == 0 && moving.errors.isEmpty, "\(moving)")
        #expect(
            moving.output
                == "the workload moves to unix:\(destination.socket): follow it with pageferry status unix:"
                + "\(source.socket) unix:\(destination.socket)\n"
        )
        try wait(source, for: "postcopy-active")
        let here = try Executable.pageferry("cancel", source.socket)
        #expect(here.status == 0 && here.errors.isEmpty, "\(here)")
        #expect(here.output == "the migration is cancelled: the workload random runs at unix:\(source.socket)\n")
        try wait(destination, for: "cancelled")
        try expectNothing(source)
        try expectNothing(destination)
    }

    @Test("cancel after a move is refused with the way back, and with no word of pages", .timeLimit(.minutes(1)))
    func cancelsMoved() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        #expect(try Executable.migrate(source, destination).status == 0)
        let late = try Executable.pageferry("cancel", source.socket)
        #expect(late.status == 1 && !late.errors.contains("page has arrived"), "\(late)")
        #expect(
            late.errors.contains("to move it back: pageferry migrate --source DESTINATION --destination unix:"),
            "\(late)"
        )
    }

    @Test("migrate-incoming in place of --listen keeps the promise to wait on", .timeLimit(.minutes(1)))
    func listensElsewhere() throws {
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let first = try destination.listeningAddress()
        _ = try destination.qmp("{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"tcp:127.0.0.1:0\"}}")
        _ = try destination.running.errorLine(holding: "as a client has asked, and no longer at \(first)")
        _ = try source.qmp(
            "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"\(try destination.commandedAddress())\"}}"
        )
        try wait(destination, for: "active")
        #expect(try Executable.pageferry("cancel", source.socket).status == 0)
        _ = try destination.running.errorLine(holding: "waiting for the next source at ")
        #expect(try Executable.migrate(source, destination).status == 0)
    }

    @Test("a source that has lost its workload exits with status 1, as its destination does", .timeLimit(.minutes(1)))
    func losesWorkload() throws {
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
        #expect(try Executable.migrate(source, destination, "--detach").status == 0)
        try wait(source, for: "downtime")
        destination.end()
        try wait(source, for: "postcopy-paused")
        let lost = try Executable.pageferry("cancel", "--workload-is-lost", source.socket)
        #expect(lost.status == 0 && lost.output.contains("the workload is lost, and runs nowhere"), "\(lost)")
        kill(source.running.pid, SIGTERM)
        let finished = try source.running.finish()
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.errors.contains("pageferry: the migration failed: "), "\(finished)")
        #expect(finished.errors.contains("nobody runs it"), "\(finished)")
    }

    @Test("quit ends an agent whose stop waits for a page", .timeLimit(.minutes(1)))
    func quits() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "64MiB", "--no-push", "--think-time", "1ms")
        defer { source.end() }
        let destination = try AgentProcess.destination(
            in: workspace,
            "--listen",
            "127.0.0.1:0",
            "--peer-timeout",
            "60s"
        )
        defer { destination.end() }
        #expect(try Executable.migrate(source, destination, "--detach").status == 0)
        try wait(destination, for: "postcopy-active")
        kill(source.running.pid, SIGSTOP)
        defer { kill(source.running.pid, SIGCONT) }
        // The workload's thread waits for a page now, so that it cannot stop.
        try waitForFaults(at: destination)
        let stop = try QMPLine(path: destination.socket)
        try stop.send(Array("{\"execute\":\"stop\"}\n".utf8))
        _ = try destination.qmp("quit")
        #expect(try stop.answer().contains("this agent is exiting"))
        let finished = try destination.running.finish()
        #expect(finished.status == 0, "\(finished)")
        #expect(!FileManager.default.fileExists(atPath: destination.socket))
    }

    @Test(
        "a destination whose source is dead says what waits, and ends on the operator's word",
        .timeLimit(.minutes(1))
    )
    func sourceIsDead() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "64MiB", "--no-push", "--think-time", "1ms")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let sockets = ["--source", source.socket, "--destination", destination.socket]
        let migrating = try Running(Executable.pageferry, ["migrate"] + sockets)
        defer { migrating.end() }
        try wait(destination, for: "postcopy-active")
        source.end()
        let finished = try migrating.finish()
        #expect(finished.status == 1 && finished.output.contains("waiting         1 fault,"), "\(finished)")
        try waitForFaults(at: destination)
        let status = try Executable.pageferry("status", destination.socket)
        #expect(status.output.contains("1 fault waits for its page, the oldest for"), "\(status)")
        let refused = try Executable.pageferry("cancel", destination.socket)
        #expect(refused.status == 1 && refused.errors.contains("pageferry cancel --workload-is-lost"), "\(refused)")
        let wrong = try Executable.pageferry("cancel", destination.socket, "--destination-is-gone")
        #expect(
            wrong.status == 1 && wrong.errors.contains("the workload has started there; once this agent"),
            "\(wrong)"
        )
        // The workload has run here, so its source cannot resume it on any word.
        #expect(!wrong.errors.contains("--destination-is-gone"), "\(wrong)")
        let cont = try Executable.pageferry("cont", destination.socket)
        #expect(cont.status == 0 && cont.errors.contains("its link to the source is broken"), "\(cont)")
        let ended = try Executable.pageferry("cancel", destination.socket, "--workload-is-lost")
        #expect(ended.status == 0 && ended.output.contains("is ended, and its agent exits"), "\(ended)")
        let gone = try destination.running.finish()
        #expect(gone.status == 1 && gone.errors.contains("the source is gone for good"), "\(gone)")
    }

    @Test(
        "cancel --destination-is-gone works whenever the operator gives the word, also while the destination hangs",
        .timeLimit(.minutes(1))
    )
    func hungDestination() throws {
        let source = try AgentProcess.source(
            in: workspace,
            ["--memory", "4MiB", "--device", "slow:start=20", "--peer-timeout", "3s"]
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        #expect(try Executable.migrate(source, destination, "--detach").status == 0)
        try wait(source, for: "postcopy-active")
        kill(destination.running.pid, SIGSTOP)
        defer { kill(destination.running.pid, SIGCONT) }
        // The source redials, and the kernel accepts the connection for the process that is stopped.
        try wait(source, for: "postcopy-recover-setup")
        let cancelled = try Executable.pageferry("cancel", source.socket)
        #expect(cancelled.status == 1, "\(cancelled)")
        #expect(
            cancelled.errors.contains("pageferry cancel --destination-is-gone unix:\(source.socket)"),
            "\(cancelled)"
        )
        try wait(source, for: "postcopy-recover-setup")
        let taken = try Executable.pageferry("cancel", "--destination-is-gone", source.socket)
        #expect(taken.status == 0, "\(taken)")
        #expect(try source.qmp("query-status").contains("\"running\""))
    }

    @Test("migrate waits out a pause as the agents do, and says so", .timeLimit(.minutes(1)))
    func waitsOutAPause() throws {
        let hosts = try TwoHosts(rate: "200mbit")
        let options = ["--peer-timeout", "1s"]
        let source = try AgentProcess.source(
            in: workspace,
            on: (hosts, hosts.source),
            ["--memory", "64MiB", "--think-time", "1ms"] + options
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(
            in: workspace,
            on: (hosts, hosts.destination),
            ["--listen", "\(TwoHosts.destinationAddress):7000", "--insecure"] + options
        )
        defer { destination.end() }
        let sockets = ["--source", source.socket, "--destination", destination.socket]
        let migrating = try Running(Executable.pageferry, ["migrate", "--verify"] + sockets)
        defer { migrating.end() }
        try wait(destination, for: "postcopy-active")
        try hosts.cutLink()
        // Longer than a pause that is not told of.
        _ = try migrating.errorLine(holding: "the migration is paused, and the agents try to resume it: ")
        try hosts.mendLink()
        let finished = try migrating.finish()
        #expect(finished.status == 0, "\(finished)")
        #expect(finished.errors.contains("pages move again") || finished.output.contains("completed"), "\(finished)")
    }

    @Test("migrate says that the workload waits for cont, and goes on when that comes", .timeLimit(.minutes(1)))
    func stopped() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0", "--stopped")
        defer { destination.end() }
        let sockets = ["--source", source.socket, "--destination", destination.socket]
        let migrating = try Running(Executable.pageferry, ["migrate"] + sockets)
        defer { migrating.end() }
        _ = try migrating.errorLine(holding: "the workload starts on pageferry cont unix:\(destination.socket)")
        let status = try Executable.pageferry("status", destination.socket)
        #expect(status.output.contains("waiting for pageferry cont"), "\(status)")
        #expect(try Executable.pageferry("cont", destination.socket).status == 0)
        let finished = try migrating.finish()
        #expect(finished.status == 0, "\(finished)")
    }

    @Test("a destination whose migration was cancelled says so once, and with --listen stays", .timeLimit(.minutes(1)))
    func cancelledOnce() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB")
        defer { source.end() }
        for listens in [false, true] {
            let destination = try AgentProcess.destination(in: workspace, listens ? ["--listen", "127.0.0.1:0"] : [])
            defer { destination.end() }
            if !listens {
                _ = try destination.qmp(
                    "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"tcp:127.0.0.1:0\"}}"
                )
            }
            let answer = try Printed(destination.qmp("query-migrate"))
            let addresses: [[String: Any]] = try answer.value("return", "socket-address")
            let port = try #require(addresses.first?["port"] as? String)
            _ = try source.qmp("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:127.0.0.1:\(port)\"}}")
            try wait(source, for: "active")
            #expect(try Executable.pageferry("cancel", source.socket).status == 0)
            _ = try destination.running.errorLine(holding: "the migration was cancelled")
            if listens {
                #expect(try Executable.migrate(source, destination).status == 0)
            } else {
                #expect(try destination.running.finish().status == 1)
            }
            let told = destination.running.errorText.components(separatedBy: "the migration was cancelled")
            #expect(told.count == 2, "\(destination.running.errorText)")
        }
    }

    @Test("a recovery that leads to the cancel which was asked for fails with that", .timeLimit(.minutes(1)))
    func recoversToACancel() throws {
        let source = try AgentProcess.source(
            in: workspace,
            ["--memory", "16MiB", "--device", "slow:start=5", "--recover-for", "0s"]
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let address = try destination.listeningAddress()
        #expect(try Executable.migrate(source, destination, "--detach").status == 0)
        try wait(source, for: "postcopy-active")
        _ = try source.qmp("migrate-pause")
        try wait(source, for: "postcopy-paused")
        // The outcome is unknown yet, but the wish stays.
        #expect(try Executable.pageferry("cancel", source.socket).status == 1)
        let recovered = try Executable.pageferry("recover", "--source", source.socket, "--uri", address)
        #expect(recovered.status == 1 && recovered.errors.contains("the migration was cancelled"), "\(recovered)")
        #expect(try source.qmp("query-status").contains("\"running\""))
    }

    @Test(
        "migrate says that the workload runs nowhere after a refused start for which its source waits",
        .timeLimit(.minutes(1))
    )
    func refusedStart() throws {
        let source = try AgentProcess.source(
            in: workspace,
            ["--memory", "16MiB", "--device", "broken:start", "--on-start-failure", "wait"]
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let sockets = ["--source", source.socket, "--destination", destination.socket]
        let migrating = try Running(Executable.pageferry, ["migrate"] + sockets)
        defer { migrating.end() }
        _ = try migrating.errorLine(
            holding: "the workload runs nowhere until pageferry cont unix:\(destination.socket)"
        )
        #expect(try Executable.pageferry("cancel", source.socket).status == 0)
        #expect(try migrating.finish().status == 1)
    }

    @Test("a recovery over the address where the destination listens needs no other", .timeLimit(.minutes(1)))
    func recoversInPlace() throws {
        let source = try AgentProcess.source(
            in: workspace,
            ["--memory", "64MiB", "--no-push", "--think-time", "1ms", "--recover-for", "0s"]
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let address = try destination.listeningAddress()
        let sockets = ["--source", source.socket, "--destination", destination.socket]
        let migrating = try Running(Executable.pageferry, ["migrate"] + sockets)
        defer { migrating.end() }
        try wait(destination, for: "postcopy-active")
        try wait(source, for: "postcopy-active")
        _ = try source.qmp("migrate-pause")
        let paused = try migrating.finish()
        #expect(paused.status == 1, "\(paused)")
        #expect(paused.errors.contains("pageferry recover --source unix:\(source.socket)"), "\(paused)")
        let recovered = try Executable.run(Executable.pageferry, ["recover"] + sockets + ["--uri", address])
        #expect(recovered.status == 0, "\(recovered)")
    }

    @Test("--detach goes with nothing that comes later")
    func detachAlone() throws {
        for option in ["--verify", "--json"] {
            let refused = try Executable.pageferry(
                "migrate",
                "--source",
                "/a",
                "--destination",
                "/b",
                "--detach",
                option
            )
            #expect(refused.status == 2 && refused.errors.contains("drop --"), "\(refused)")
        }
    }

    private func wait(_ agent: AgentProcess, for state: String) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !agent.qmp("query-migrate").contains("\"\(state)\"") {
            guard Date() < deadline else { throw TestFailure("never \(state): \(try agent.qmp("query-migrate"))") }
        }
    }

    private func waitForFaults(at agent: AgentProcess) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !agent.qmp("query-migrate").contains("\"pageferry-waiting-faults\"") {
            guard Date() < deadline else { throw TestFailure("no fault waits: \(try agent.qmp("query-migrate"))") }
        }
    }
}

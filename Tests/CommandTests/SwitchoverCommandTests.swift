import Foundation
import Testing

@Suite("Cancel, lease and recovery, on real processes")
struct SwitchoverCommandTests {
    private let workspace: Workspace

    init() throws {
        workspace = try Workspace()
    }

    private func migrate(_ source: AgentProcess, _ destination: AgentProcess, _ options: String...) throws -> Running {
        let sockets = ["--source", source.socket, "--destination", destination.socket]
        return try Running(Executable.pageferry, ["migrate", "--json"] + sockets + options)
    }

    private func wait(_ agent: AgentProcess, for state: String) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !agent.qmp("query-migrate").contains("\"\(state)\"") {
            guard Date() < deadline else { throw TestFailure("never \(state): \(try agent.qmp("query-migrate"))") }
        }
    }

    @Test("cancel between RUN and the start brings the workload back", .timeLimit(.minutes(1)))
    func cancel() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB", "--device", "slow:start=2")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let migrating = try migrate(source, destination, "--verify")
        defer { migrating.end() }
        try wait(source, for: "postcopy-active")
        let cancelled = try Executable.pageferry("cancel", source.socket)
        #expect(cancelled.status == 0, "\(cancelled)")
        let finished = try migrating.finish()
        #expect(finished.status == 1, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "cancelled")
        #expect(try report.value("runs_on") == "source")
        #expect(try report.number("verify", "pages_checked") == 4096)
        #expect(try report.number("verify", "corrupt") == 0)
    }

    @Test(
        "with a lease, the source resumes the workload of a destination that dies before its start",
        .timeLimit(.minutes(1))
    )
    func leaseTakesBack() throws {
        let lease = ["--lease", "\(workspace.path)/test"]
        let source = try AgentProcess.source(
            in: workspace,
            ["--memory", "16MiB", "--device", "slow:start=30", "--peer-timeout", "1s"] + lease
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, ["--listen", "127.0.0.1:0"] + lease)
        defer { destination.end() }
        let migrating = try migrate(source, destination)
        defer { migrating.end() }
        try wait(source, for: "postcopy-active")
        destination.end()
        let finished = try migrating.finish()
        #expect(finished.status == 1, "\(finished)")
        #expect(try Printed(finished.output).value("runs_on") == "source")
        #expect(try String(contentsOfFile: workspace.file("test/2"), encoding: .utf8).contains("epoch 2"))
    }

    @Test("without a lease, the source waits for the operator's confirmation", .timeLimit(.minutes(1)))
    func operatorsWord() throws {
        let source = try AgentProcess.source(in: workspace, ["--memory", "16MiB", "--device", "slow:start=30"])
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, ["--listen", "127.0.0.1:0"])
        defer { destination.end() }
        let migrating = try migrate(source, destination)
        defer { migrating.end() }
        try wait(source, for: "postcopy-active")
        destination.end()
        try wait(source, for: "postcopy-paused")
        let refused = try Executable.pageferry("cancel", source.socket)
        #expect(refused.status == 1 && refused.errors.contains("unknown"), "\(refused)")
        let taken = try Executable.pageferry("cancel", source.socket, "--destination-is-gone")
        #expect(taken.status == 0, "\(taken)")
        #expect(try source.qmp("query-status").contains("\"running\""))
    }

    @Test("after the death of a started destination, it is unknown where the workload runs", .timeLimit(.minutes(1)))
    func destinationDies() throws {
        let source = try AgentProcess.source(in: workspace, ["--memory", "64MiB", "--no-push", "--think-time", "1ms"])
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, ["--listen", "127.0.0.1:0"])
        defer { destination.end() }
        let migrating = try migrate(source, destination)
        defer { migrating.end() }
        try wait(destination, for: "postcopy-active")
        try waitForStart(at: source)
        destination.end()
        let finished = try migrating.finish()
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.output.contains("\"runs_on\":null"), "\(finished)")
        let error: String = try Printed(finished.output).value("error")
        #expect(
            error.contains("; the workload has started on the destination; the destination's agent does not answer")
        )
        let refused = try Executable.pageferry("cancel", source.socket)
        #expect(refused.status == 1 && refused.errors.contains("--workload-is-lost"), "\(refused)")
    }

    /// Waits until the source has learned that the workload runs at the destination.
    private func waitForStart(at source: AgentProcess) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !source.qmp("query-migrate").contains("\"downtime\"") {
            guard Date() < deadline else { throw TestFailure("the source never heard of the start") }
        }
    }

    @Test("migrate reports that neither agent answers any more", .timeLimit(.minutes(1)))
    func bothDie() throws {
        let source = try AgentProcess.source(in: workspace, ["--memory", "16MiB", "--device", "slow:start=30"])
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, ["--listen", "127.0.0.1:0"])
        defer { destination.end() }
        let sockets = ["--source", source.socket, "--destination", destination.socket]
        let migrating = try Running(Executable.pageferry, ["migrate"] + sockets)
        defer { migrating.end() }
        try wait(source, for: "postcopy-active")
        source.end()
        destination.end()
        let finished = try migrating.finish()
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.errors.contains("neither agent answers any more: look at both with"), "\(finished)")
    }

    @Test("no page is lost when the link is cut twice and reconnected", .timeLimit(.minutes(2)))
    func cutTwice() throws {
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
        let begun = try Executable.migrate(source, destination, "--detach")
        #expect(begun.status == 0, "\(begun)")
        for _ in 0..<2 {
            try wait(source, for: "postcopy-active")
            try wait(destination, for: "postcopy-active")
            try hosts.cutLink()
            try wait(source, for: "postcopy-paused")
            try wait(destination, for: "postcopy-paused")
            try hosts.mendLink()
        }
        try wait(source, for: "completed")
        try wait(destination, for: "completed")
        let check = try Printed(destination.qmp("stop", "pageferry-verify"))
        #expect(try check.number("return", "pages_checked") == 16384)
        #expect(try check.number("return", "corrupt") == 0)
    }

    @Test("a second migrate continues the migration of one that died", .timeLimit(.minutes(1)))
    func migrateAgain() throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        // The commands of a migrate that was killed before it began the switchover.
        let socket = try Printed(destination.qmp("query-migrate"))
        let addresses: [[String: Any]] = try socket.value("return", "socket-address")
        let port = try #require(addresses.first?["port"] as? String)
        let begin = "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:127.0.0.1:\(port)\"}}"
        _ = try source.qmp(begin)
        for isAgain in [false, true] {
            // The second run finds the migration completed, and says so.
            let migrating = try migrate(source, destination, "--verify")
            defer { migrating.end() }
            let finished = try migrating.finish()
            #expect(finished.status == 0, "\(finished)")
            #expect(finished.errors.contains("before, and nothing was moved") == isAgain, "\(finished)")
            let report = try Printed(finished.output)
            #expect(try report.value("result") == "completed")
            #expect(try report.value("runs_on") == "destination")
            #expect(try report.number("verify", "pages_checked") == 4096)
        }
        let otherWorkspace = try Workspace()
        let other = try AgentProcess.destination(in: otherWorkspace, "--listen", "127.0.0.1:0")
        defer { other.end() }
        let refused = try migrate(source, other)
        defer { refused.end() }
        let finished = try refused.finish()
        #expect(finished.status == 1)
        #expect(finished.errors.contains("another destination than unix:\(other.socket)"), "\(finished)")
    }

    @Test("a workload goes there and back, and there again", .timeLimit(.minutes(2)))
    func thereAndBack() throws {
        let a = try AgentProcess.source(in: workspace, ["--memory", "16MiB", "--lease", "\(workspace.path)/test"])
        defer { a.end() }
        let b = try AgentProcess.destination(in: workspace, ["--lease", "\(workspace.path)/test"])
        defer { b.end() }
        for (from, to) in [(a, b), (b, a), (a, b)] {
            let moved = try migrate(from, to, "--verify")
            defer { moved.end() }
            let finished = try moved.finish()
            #expect(finished.status == 0, "\(finished)")
            let report = try Printed(finished.output)
            #expect(try report.value("result") == "completed")
            #expect(try report.number("verify", "corrupt") == 0)
            #expect(try report.number("verify", "pages_checked") == 4096)
        }
    }
}

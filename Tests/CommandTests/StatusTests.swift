import Glibc
import Testing

@Suite("The command status", .timeLimit(.minutes(1)))
struct StatusTests {
    @Test("tells of every agent, also behind one that does not answer, and fails then", arguments: [[], ["--json"]])
    func unreachable(options: [String]) throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let missing = workspace.file("missing.sock")
        let finished = try Executable.run(Executable.pageferry, ["status", missing, source.socket] + options)
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.output.contains("random"), "\(finished)")
        #expect(
            finished.errors == """
                pageferry: cannot connect to unix:\(missing): No such file or directory; check the path, and that the \
                agent runs

                """
        )
    }

    @Test("names the agent that each object is about, also one that does not answer")
    func addresses() throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let missing = workspace.file("missing.sock")
        let finished = try Executable.pageferry("status", "--json", missing, source.socket)
        #expect(finished.status == 1, "\(finished)")
        let lines = finished.output.split(separator: "\n").map(String.init)
        try #require(lines.count == 2, "\(finished)")
        #expect(try Printed(lines[0]).value("address") == "unix:\(missing)")
        let error: String = try Printed(lines[0]).value("error")
        #expect(error.contains("No such file or directory"))
        #expect(try Printed(lines[1]).value("address") == "unix:\(source.socket)")
        #expect(try Printed(lines[1]).value("workload") == "random")
    }

    @Test("says why a workload that has come runs no more")
    func ended() throws {
        let workspace = try Workspace()
        let client = try workspace.compile("attach")
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB", "--seed", "7")
        defer { source.end() }
        let attach = workspace.file("attach.sock")
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0", "--attach", attach)
        defer { destination.end() }
        let refused = try Executable.migrate(source, destination, "--verify")
        #expect(refused.status == 1, "\(refused)")
        #expect(refused.errors.contains("migrate without --verify"), "\(refused)")
        #expect(try source.qmp("query-migrate").contains("\"return\":{}"))
        let attached = try Running(client, [attach, "7", String(4 << 20)])
        defer { attached.end() }
        let migrated = try Executable.migrate(source, destination, "--json")
        #expect(migrated.status == 0, "\(migrated)")
        #expect(try attached.finish().status == 0)
        _ = try destination.running.errorLine(holding: "the workload has ended: ")
        let finished = try Executable.pageferry("status", destination.socket)
        #expect(
            finished.output.contains("migration completed, attach (process \(attached.pid)) has ended: "),
            "\(finished)"
        )
    }

    @Test("tells that two agents run the workload of one migration, and how to stop one", arguments: [[], ["--json"]])
    func twoRunners(options: [String]) throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(
            in: workspace,
            ["--memory", "4MiB", "--device", "slow:start=2", "--peer-timeout", "1s"]
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        #expect(try Executable.migrate(source, destination, "--detach").status == 0)
        while try !source.qmp("query-migrate").contains("\"postcopy-active\"") {}
        kill(destination.running.pid, SIGSTOP)
        while try source.qmp("query-migrate").contains("\"postcopy-active\"") {}
        // A false word: the process continues, and starts the workload.
        let word = try Executable.pageferry("cancel", "--destination-is-gone", source.socket)
        #expect(word.status == 0 && word.output.contains("runs at unix:\(source.socket)"), "\(word)")
        kill(destination.running.pid, SIGCONT)
        while try !destination.qmp("query-status").contains("\"running\":true") {}
        for agents in [[source.socket, destination.socket], [destination.socket, source.socket]] {
            let told = try Executable.run(Executable.pageferry, ["status"] + agents + options)
            #expect(told.status == 1, "\(told)")
            let lines = told.errors.split(separator: "\n")
            #expect(lines.count == 1 && lines[0].contains("both run the workload random of one migration"), "\(told)")
            #expect(
                lines[0].contains("stop one of the two now: the agent at unix:\(source.socket) by SIGTERM"),
                "\(told)"
            )
            guard !options.isEmpty else { continue }
            for line in told.output.split(separator: "\n") {
                let object = try Printed(String(line))
                let error: String = try object.value("error")
                #expect(error.contains("both run the workload"))
                let (here, there): (String, String) = (try object.value("address"), try object.value("alsoRunsAt"))
                #expect(Set([here, there]) == Set(agents.map { "unix:\($0)" }))
            }
        }
        let alone = try Executable.run(Executable.pageferry, ["status", source.socket] + options)
        #expect(alone.status == 0, "\(alone)")
    }

    /// A report of an agent, with the pages on demand as they are said to be.
    private func report(demand: String) -> String {
        let zeros = ["count", "mean", "p50", "p90", "p99", "p999", "max", "total"].map { "\"\($0)\":0" }
        let latency = "{\(zeros.joined(separator: ","))}"
        return """
            {"instance":"","states":["none"],"runsHere":true,"holdsWorkload":true,"pageSize":4096,"memoryBytes":4096,\
            "workload":"w","operations":1,"total":0,"destination":{"load":0,"untilStarted":0,"start":0,"untilResident":0,\
            "pages":{"total":7,\(demand)"prefetched":9223372036854775,"prefetched_unused":0,"pushed":1,"zero":1,\
            "duplicate":0},"stall":\(latency),"service":\(latency),\
            "floor":{"round_trip_p50":0,"local_fault_p50":0}}}
            """
    }

    @Test(
        "says that an agent's counts make no sense",
        arguments: [
            "\"demand\":9223372036854775807,", "\"demand\":-1,", "\"demand\":NaN,", "\"demand\":1.5,", "",
            "\"demand\":1e300,", "\"demand\":1e999,", "\"demand\":null,", "\"demand\":18446744073709551616,",
            "\"demand\":\"7\",", "\"demand\":0,",
        ],
        [[], ["--json"]]
    )
    func lies(demand: String, options: [String]) throws {
        let workspace = try Workspace()
        let agent = try LyingAgent(in: workspace, answering: report(demand: demand))
        defer { agent.end() }
        let finished = try Executable.run(Executable.pageferry, ["status", agent.socket] + options)
        #expect(finished.status == 1, "\(finished)")
        // With --json an object says of which agent the error is.
        let words = finished.output.split(separator: "\n").map { $0.contains("\"address\":\"unix:\(agent.socket)\"") }
        #expect(words == (options.isEmpty ? [] : [true]), "\(finished)")
        #expect(finished.errors.split(separator: "\n").count == 1, "\(finished)")
        #expect(
            finished.errors.contains("its answer is invalid") || finished.errors.contains("JSON parse error"),
            "\(finished)"
        )
    }
}

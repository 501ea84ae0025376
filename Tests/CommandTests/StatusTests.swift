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
        #expect(finished.output.contains("migration completed, built-in has ended: "), "\(finished)")
    }
}

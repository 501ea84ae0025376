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
}

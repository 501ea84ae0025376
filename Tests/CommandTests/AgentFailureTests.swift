import Testing

@Suite("An agent that cannot report", .timeLimit(.minutes(1)))
struct AgentFailureTests {
    private static func report(_ state: String, _ more: String) -> String {
        """
        {"instance":"\(state)","states":["none","\(state)"],"runsHere":true,"holdsWorkload":true,"pageSize":4096,\
        "memoryBytes":4096,"workload":"w","operations":1,"total":0\(more)}
        """
    }

    private static let source = report(
        "active",
        ",\"source\":{\"stop\":0,\"save\":0,\"untilLoaded\":0,\"untilRunning\":0,\"lastOperationToRun\":0,"
            + "\"operationsAfterTakeBack\":0,\"requests\":0,\"bytesSent\":0}"
    )

    @Test("or says what no migration is, ends migrate with the reason")
    func nonsense() throws {
        let liars: [(first: String, last: String, words: String)] = [
            (
                AgentFailureTests.report("completed\\u001b[2J", ""), "",
                "its answer is invalid: states.Index 1: 'completed\\u{1b}[2J' is no state of a migration"
            ), (AgentFailureTests.source, AgentFailureTests.report("none", ""), "knows of no migration any more"),
        ]
        for liar in liars {
            let workspace = try Workspace()
            let source = try LyingAgent(
                at: workspace.file("source.sock"),
                answering: [("return", liar.first), ("return", "{}"), ("return", liar.last)]
            )
            defer { source.end() }
            let destination = try LyingAgent(
                at: workspace.file("destination.sock"),
                answering: [("return", AgentFailureTests.report("setup", ""))]
            )
            defer { destination.end() }
            let arguments = ["migrate", "--source", source.socket, "--destination", destination.socket]
            let finished = try Executable.run(Executable.pageferry, arguments)
            #expect(finished.status == 1 && finished.errors.contains(liar.words), "\(finished)")
        }
    }

    @Test("is not taken for one that has ended: migrate says which agent, and why")
    func failing() throws {
        let workspace = try Workspace()
        let broken = "{\"class\":\"GenericError\",\"desc\":\"no memory is left\"}"
        let source = try LyingAgent(
            at: workspace.file("source.sock"),
            // For the report before the migration, `migrate-start-postcopy`, and the report of its end.
            answering: [("return", AgentFailureTests.source), ("return", "{}"), ("error", broken)]
        )
        defer { source.end() }
        let destination = try LyingAgent(
            at: workspace.file("destination.sock"),
            answering: [("return", AgentFailureTests.report("completed", ""))]
        )
        defer { destination.end() }
        let finished = try Executable.pageferry(
            "migrate",
            "--source",
            source.socket,
            "--destination",
            destination.socket
        )
        #expect(finished.status == 1, "\(finished)")
        #expect(
            finished.errors == "pageferry: pageferry-report at unix:\(source.socket): no memory is left\n",
            "\(finished)"
        )
    }
}

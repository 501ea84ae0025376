import OwnThread
import QMP
import Testing

@testable import Controller

@Suite("A refusal names the remedy in words of QMP", .ownThread, .timeLimit(.minutes(1)))
struct RemedyTests {
    private func expect(
        _ refusal: String?,
        _ reason: String,
        _ remedy: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(refusal == "\(reason); \(remedy)", sourceLocation: sourceLocation)
    }

    @Test func `at an agent without a workload`() async throws {
        let host = Host()
        expect(
            await host.refusal("migrate", ["uri": "127.0.0.1:1"]),
            "there is no workload here to migrate",
            "send migrate to the agent that has it"
        )
        for command in ["cont", "stop", "pageferry-verify"] {
            expect(
                await host.refusal(command),
                "there is no workload here",
                "send the command to the agent that has it"
            )
        }
        for (command, arguments) in [
            ("migrate-pause", [:]), ("pageferry-destination-gone", ["has-run": false]), ("pageferry-source-gone", [:]),
        ] as [(String, [String: JSONValue])] {
            expect(
                await host.refusal(command, arguments),
                "no migration is under way here",
                "query-migrate at the other agent shows whether it knows of one"
            )
        }
        expect(
            await host.refusal("migrate", ["uri": "127.0.0.1:1", "resume": true]),
            "no migration is paused here",
            SourceSession.whoResumes
        )
    }

    @Test func `at an agent that has a workload, or waits for one already`() async throws {
        let journal = Journal()
        let workload = try TestWorkload.filled(journal: journal)
        defer { try? workload.stop() }
        let host = Host(workload: workload, landing: TestLanding(journal: journal))
        try await host.agent.startWorkload()
        expect(
            await host.refusal("migrate-incoming", ["uri": "127.0.0.1:0"]),
            "this agent holds a workload and takes no other",
            "send migrate-incoming to an agent without a workload"
        )
        let waiting = Host(landing: TestLanding(journal: journal))
        try await waiting.command("migrate-incoming", ["uri": "127.0.0.1:0"])
        let port = try await waiting.command("query-migrate")["socket-address"]?[0]?["port"]?.string ?? ""
        expect(
            await waiting.refusal("migrate-incoming", ["uri": "127.0.0.1:0"]),
            "The incoming migration has already been started",
            "this agent listens at tcp:127.0.0.1:\(port)"
        )
    }

    @Test func `after a move`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        let address = ferrying.relay.address
        expect(
            await ferrying.source.refusal("migrate_cancel"),
            "the workload has started on the destination",
            "to move it back, run migrate there"
        )
        expect(
            await ferrying.source.refusal("migrate", ["uri": ferrying.uri]),
            "the workload has moved to \(address)",
            "send migrate to the agent there"
        )
        expect(
            await ferrying.source.refusal("migrate-start-postcopy"),
            "the last migration is completed",
            "to move it back, run migrate there"
        )
        expect(
            await ferrying.destination.refusal("migrate-incoming", ["uri": "127.0.0.1:0"]),
            "this agent holds a workload and takes no other",
            "send migrate-incoming to an agent without a workload"
        )
        for command in ["cont", "stop"] {
            expect(
                await ferrying.source.refusal(command),
                "the workload has moved to \(address) and runs there",
                "send the command to the agent there"
            )
        }
        expect(
            await ferrying.source.refusal("pageferry-destination-gone", ["has-run": true]),
            "the source does not wait for a destination, the migration is completed",
            "this is accepted only while query-migrate shows postcopy-paused or a recovery"
        )
        expect(
            await ferrying.source.refusal("migrate", ["uri": ferrying.uri, "resume": true]),
            "no migration is paused here, it is completed",
            SourceSession.whoResumes
        )
        expect(
            await ferrying.destination.refusal("migrate-recover", ["uri": "127.0.0.1:0"]),
            "no migration is paused here, it is completed",
            DestinationSession.whoRecovers
        )
    }

    @Test func `while pages are on their way`() async throws {
        let ferrying = try await Ferrying(pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-active")
        #expect(try await soon { try await ferrying.source.command("query-migrate")["downtime"] != nil })
        expect(
            await ferrying.source.refusal("migrate_cancel"),
            "the workload has started on the destination",
            "follow it with query-migrate; once that shows completed, run migrate there to move it back"
        )
        expect(
            await ferrying.source.refusal("migrate", ["uri": ferrying.uri]),
            "a migration is under way, in postcopy-active",
            "wait until query-migrate shows completed"
        )
        expect(
            await ferrying.destination.refusal("migrate", ["uri": ferrying.uri]),
            "the workload has not arrived completely, it is postcopy-active",
            "wait until query-migrate shows completed"
        )
        expect(
            await ferrying.destination.refusal("migrate-incoming", ["uri": "127.0.0.1:0"]),
            "a migration arrives here already, in postcopy-active",
            "wait until it ends, or choose another agent"
        )
    }

    @Test func `before the workload has arrived`() async throws {
        let ferrying = try await Ferrying(startsStopped: true)
        defer { ferrying.end() }
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "active")
        try await ferrying.destination.wait(for: "active")
        expect(
            await ferrying.source.refusal("migrate", ["uri": ferrying.uri]),
            "a migration is under way, in active",
            "wait until query-migrate shows completed, or run migrate_cancel first"
        )
        expect(
            await ferrying.destination.refusal("migrate-incoming", ["uri": "127.0.0.1:0"]),
            "a migration arrives here already, in active",
            "wait until it ends, or run migrate_cancel at its source"
        )
        expect(
            await ferrying.destination.refusal("stop"),
            "the workload has not started here yet",
            "run cont first, which waits until it runs"
        )
        try await ferrying.source.command("migrate_cancel")
        try await ferrying.destination.wait(for: "failed")
        let late = await ferrying.destination.refusal("cont")
        #expect(late?.hasSuffix("; nothing is left to start here: run migrate at the source again") == true)
    }
}

import LinuxSystem
import OwnThread
import QMP
import RunLease
import Testing

@testable import Controller

@Suite("A paused workload", .ownThread, .timeLimit(.minutes(2)))
struct PausedTests {
    @Test func `is paused in query-status until its switchover, if a client has stopped it before`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("stop")
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "active")
        #expect(try await ferrying.source.command("query-status")["status"] == "paused")
        try await ferrying.source.command("migrate-start-postcopy")
        try await ferrying.source.wait(for: "completed")
        #expect(try await ferrying.source.command("query-status")["status"] == "postmigrate")
    }

    private func paused(older: Bool = false, startsStopped: Bool = false) async throws -> Ferrying {
        let ferrying = try await Ferrying(startsStopped: startsStopped, older: older)
        try await ferrying.source.command("stop")
        return ferrying
    }

    @Test func `moves with all of its memory, arrives paused, and runs after cont`() async throws {
        let ferrying = try await paused()
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        #expect(ferrying.journal.running == [])
        #expect(try await ferrying.source.command("query-status")["status"] == "postmigrate")
        #expect(try await ferrying.destination.command("query-status")["status"] == "paused")
        #expect(ferrying.wrongPages() == [])
        // The operator stopped the workload once, and no one has resumed it.
        #expect(ferrying.source.events.filter { $0 == "STOP" }.count == 1)
        #expect(!ferrying.destination.events.contains("RESUME"))
        // The workload was paused before the migration and is paused after it, so there is no downtime.
        #expect(try await ferrying.source.command("query-migrate")["downtime"] == nil)
        try await ferrying.destination.command("cont")
        #expect(ferrying.journal.running == ["destination"])
        #expect(ferrying.destination.events.last == "RESUME")
        #expect(await ferrying.source.refusal("cont")?.contains("has moved") == true)
    }

    @Test func `is paused at the source again after a cancel, and after a failure`() async throws {
        let ferrying = try await paused()
        defer { ferrying.end() }
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "active")
        try await ferrying.source.command("migrate_cancel")
        #expect(try await ferrying.source.command("query-status")["status"] == "paused")
        ferrying.workload.disk.behave { $0.save = .fails }
        // The destination may not have received the cancel yet.
        let again: [String: JSONValue] = ["uri": .string(ferrying.address.description), "exit-on-error": false]
        #expect(try await soon { await ferrying.destination.refusal("migrate-incoming", again) == nil })
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "failed")
        #expect(try await soon { await ferrying.source.refusal("stop") == nil })
        #expect(ferrying.journal.running == [])
        #expect(!ferrying.source.events.contains("RESUME"))
        try await ferrying.source.command("cont")
        #expect(ferrying.journal.running == ["source"])
    }

    @Test func `runs on arrival if cont was run before`() async throws {
        let ferrying = try await paused()
        defer { ferrying.end() }
        let destination = ferrying.destination
        async let cont: JSONValue = destination.command("cont")
        try await ferrying.migrate()
        _ = try await cont
        #expect(ferrying.journal.running == ["destination"])
        try await ferrying.source.wait(for: "completed")
    }

    @Test func `waits for cont before it belongs to a destination that was started stopped`() async throws {
        let ferrying = try await paused(startsStopped: true)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-device")
        try await ferrying.destination.command("cont")
        #expect(ferrying.journal.running == ["destination"])
        try await ferrying.source.wait(for: "completed")
    }

    @Test func `does not move to an agent that would run it`() async throws {
        let ferrying = try await paused(older: true)
        defer { ferrying.end() }
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "failed")
        #expect(try await ferrying.source.failure?.contains("is paused, and the agent at") == true)
        #expect(ferrying.journal.running == [])
        #expect(try await ferrying.source.command("query-status")["status"] == "paused")
    }

    @Test func `moves on to a third host while it is still paused`() async throws {
        let ferrying = try await paused()
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        let third = try await ferrying.moveOn()
        try await third.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        #expect(ferrying.journal.running == [])
        #expect(try await third.command("query-status")["status"] == "paused")
    }
}

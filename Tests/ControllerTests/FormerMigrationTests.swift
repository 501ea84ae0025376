import Connections
import Identity
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Switchover
import Synchronization
import Testing

@testable import Controller

@Suite("A source that reconnects", .ownThread, .timeLimit(.minutes(2)))
struct FormerMigrationTests {
    /// A migration that is complete at the destination but paused at the source, since the last message was lost.
    private func halfTold() async throws -> Ferrying {
        let ferrying = try await Ferrying(cuttingAt: .completeAck)
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "completed")
        try await ferrying.source.wait(for: "postcopy-paused")
        return ferrying
    }

    private func resume(_ ferrying: Ferrying) async throws {
        try await ferrying.source.command("migrate", ["uri": ferrying.uri, "resume": true])
        try await ferrying.source.wait(for: "completed")
    }

    @Test func `learns of the completion after the workload has moved on`() async throws {
        let ferrying = try await halfTold()
        defer { ferrying.end() }
        let third = try await ferrying.moveOn()
        try await third.wait(untilRunning: true)
        try await resume(ferrying)
        #expect(!ferrying.journal.ranTwice)
    }

    @Test func `learns of the completion while the agent waits for another workload at its address`() async throws {
        let ferrying = try await halfTold()
        defer { ferrying.end() }
        let third = try await ferrying.moveOn()
        try await third.wait(untilRunning: true)
        try await ferrying.destination.wait(for: "completed")
        try await ferrying.destination.agent.listen(at: ferrying.address, exitsOnError: false)
        try await resume(ferrying)
        #expect(try await ferrying.destination.command("query-migrate")["status"] == "setup")
    }

    @Test func `learns of the completion after the workload could not move on`() async throws {
        let ferrying = try await halfTold()
        defer { ferrying.end() }
        #expect(await ferrying.destination.refusal("migrate", ["uri": "unix:/nowhere/at/all"]) == nil)
        try await ferrying.destination.wait(for: "failed")
        try await resume(ferrying)
        #expect(try await ferrying.destination.isRunning)
    }

    @Test func `learns of the completion even after the destination has refused a migrate`() async throws {
        let ferrying = try await halfTold()
        defer { ferrying.end() }
        try await ferrying.destination.command("stop")
        ferrying.landing.workload?.movesOnlyRunning.store(true, ordering: .releasing)
        #expect(await ferrying.destination.refusal("migrate", ["uri": "127.0.0.1:1"])?.contains("stopped") == true)
        #expect(try await ferrying.destination.command("query-migrate")["status"] == "completed")
        try await resume(ferrying)
    }

    @Test func `joins its own lanes even if lanes of an earlier link connect late`() async throws {
        let ferrying = try await Ferrying(pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(untilRunning: true)
        try await ferrying.source.wait(for: "postcopy-active")
        ferrying.relay.cutAll()
        try await ferrying.source.wait(for: "postcopy-paused")
        try await ferrying.source.command("migrate", ["uri": ferrying.uri, "resume": true])
        try await ferrying.source.wait(for: "postcopy-active")
        // Lanes of the first link connect late, as after a lost SYN.
        let session = try #require(await ferrying.source.agent.outgoing)
        let first = LinkNumber(1)
        let nowhere = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        session.events.add(.link(first, .lanesJoined(try strayLanes(to: nowhere.address))))
        session.events.add(.link(first, .everyPageSent))
        session.events.add(.link(first, .failed(reason: "late")))
        // Use a thread of its own, since the agents need the pool's threads to deliver the pages.
        #expect(try await onThread("touch") { ferrying.wrongPages() } == [])
        // Every page was requested, so the migration may be complete by now.
        let state = try await ferrying.source.command("query-migrate")["status"]?.string
        #expect(state == "postcopy-active" || state == "completed")
    }

    private func strayLanes(to address: SocketAddress) throws -> Lanes {
        let hello = Hello(
            role: .destination,
            capabilities: .startResult,
            migration: .random(),
            instance: .random(),
            nonce: .random(),
            lease: .absent
        )
        return try Lanes(to: address, as: hello, urgentLanes: 1, bulkLanes: 1, peerTimeout: .seconds(5))
    }
}

import Connections
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Switchover
import Testing

@testable import Controller

@Suite("A source that comes again", .ownThread, .timeLimit(.minutes(2)))
struct FormerMigrationTests {
    /// A migration whose last word to the source was lost: complete at the destination, paused at the source.
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

    @Test func `is told of the end after the workload has moved on`() async throws {
        let ferrying = try await halfTold()
        defer { ferrying.end() }
        let third = try await ferrying.moveOn()
        try await third.wait(untilRunning: true)
        try await resume(ferrying)
        #expect(!ferrying.journal.ranTwice)
    }

    @Test func `is told of the end while the agent waits for another workload at the same address`() async throws {
        let ferrying = try await halfTold()
        defer { ferrying.end() }
        let third = try await ferrying.moveOn()
        try await third.wait(untilRunning: true)
        try await ferrying.destination.wait(for: "completed")
        try await ferrying.destination.agent.listen(at: ferrying.address, exitsOnError: false)
        try await resume(ferrying)
        #expect(try await ferrying.destination.command("query-migrate")["status"] == "setup")
    }

    @Test func `is told of the end after the workload could not move on`() async throws {
        let ferrying = try await halfTold()
        defer { ferrying.end() }
        #expect(await ferrying.destination.refusal("migrate", ["uri": "unix:/nowhere/at/all"]) == nil)
        try await ferrying.destination.wait(for: "failed")
        try await resume(ferrying)
        #expect(try await ferrying.destination.isRunning)
    }

    @Test func `keeps a completed migration known through a migrate that is refused`() async throws {
        let ferrying = try await halfTold()
        defer { ferrying.end() }
        try await ferrying.destination.command("stop")
        #expect(await ferrying.destination.refusal("migrate", ["uri": "127.0.0.1:1"])?.contains("stopped") == true)
        #expect(try await ferrying.destination.command("query-migrate")["status"] == "completed")
        try await resume(ferrying)
    }

    @Test func `finds lanes of its own, whatever comes late of an earlier link`() async throws {
        let ferrying = try await Ferrying(pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(untilRunning: true)
        try await ferrying.source.wait(for: "postcopy-active")
        ferrying.relay.cutAll()
        try await ferrying.source.wait(for: "postcopy-paused")
        try await ferrying.source.command("migrate", ["uri": ferrying.uri, "resume": true])
        try await ferrying.source.wait(for: "postcopy-active")
        // The lanes of the first link, which have taken as long to connect as a lost SYN takes.
        let session = try #require(await ferrying.source.agent.outgoing)
        let first = LinkNumber(1)
        let nowhere = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        session.events.yield(.link(first, .lanesJoined(try strayLanes(to: nowhere.address))))
        session.events.yield(.link(first, .everyPageSent))
        session.events.yield(.link(first, .failed(reason: "late")))
        // On a thread: the agents need those of the pool to bring the pages.
        #expect(try await onThread("touch") { ferrying.wrongPages() } == [])
        #expect(try await ferrying.source.command("query-migrate")["status"] == "postcopy-active")
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
        return try Lanes(to: address, as: hello, urgentLanes: 1)
    }
}

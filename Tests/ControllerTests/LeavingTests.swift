import Foundation
import LinuxSystem
import OwnThread
import QMP
import RunLease
import Testing

@testable import Controller

/// Agents that end, or pause, or are asked again, while a migration is under way.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct LeavingTests {
    @Test func `a workload that ends by itself at its source is told of, and is not migrated`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try ferrying.workload.end("its processor burned")
        try await ferrying.source.wait(forLine: "the workload has ended: its processor burned")
        #expect(ferrying.source.events.last == "SHUTDOWN")
        let refusal = await ferrying.source.refusal("migrate", ["uri": .string(ferrying.address.description)])
        #expect(refusal == "the workload is stopped; run cont first")
    }

    @Test func `a destination that quits while it waits for cont promises that nothing starts`() async throws {
        let ferrying = try await Ferrying(startsStopped: true, recovering: .seconds(60))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-device")
        try await ferrying.destination.command("quit")
        try await ferrying.source.wait(for: "failed")
        #expect(try await ferrying.source.failure?.contains("the agent ends") == true)
        #expect(ferrying.journal.running == ["source"])
        #expect(ferrying.journal.index(of: "destination run") == nil)
    }

    @Test func `a destination that quits while it starts undoes that and promises that nothing starts`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60)) { $0.disk.behave { $0.acquire = .waits } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        #expect(try await soon { ferrying.landing.workload?.disk.gate.hasVisitor == true })
        async let quit = ferrying.destination.refusal("quit")
        try await ferrying.destination.wait(forLine: "nothing starts here any more: the agent ends")
        ferrying.landing.workload?.disk.gate.open()
        #expect(await quit == nil)
        try await ferrying.source.wait(for: "failed")
        #expect(ferrying.journal.running == ["source"])
        #expect(ferrying.journal.index(of: "destination run") == nil)
    }

    /// A store that holds the destination up once it has won: its record is written, its answer is not there yet.
    private struct SlowStore: RunLeaseStore {
        let files: FileRunLeaseStore
        let gate: Gate

        var name: String { files.name }

        func place(of workload: String) -> String { files.place(of: workload) }

        func newest(_ workload: String) throws(RunLeaseError) -> LeaseRecord? { try files.newest(workload) }

        func propose(_ record: LeaseRecord, for workload: String) throws(RunLeaseError) -> LeaseProposal {
            let proposal = try files.propose(record, for: workload)
            if record.epoch == 2 { gate.pass() }
            return proposal
        }
    }

    @Test func `a destination that quits while it wins the lease starts nothing, and gives the lease back`()
        async throws
    {
        let folder = NSTemporaryDirectory() + "pf-lease-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let gate = try Gate()
        let store = SlowStore(files: try FileRunLeaseStore(directory: folder), gate: gate)
        let ferrying = try await Ferrying(lease: store)
        defer {
            gate.open()
            ferrying.end()
        }
        try await ferrying.migrate()
        #expect(try await soon { gate.hasVisitor })
        async let quit = ferrying.destination.refusal("quit")
        try await ferrying.destination.wait(forLine: "nothing starts here any more: the agent ends")
        gate.open()
        #expect(await quit == nil)
        try await ferrying.source.wait(for: "failed")
        #expect(ferrying.journal.running == ["source"])
        #expect(ferrying.journal.index(of: "destination run") == nil)
        #expect(try store.newest("test")?.epoch ?? 0 >= 3)
    }

    @Test func `quit is told once`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.destination.command("quit")
        try await ferrying.destination.command("quit")
        #expect(ferrying.destination.events.count { $0 == "SHUTDOWN" } == 1)
    }

    @Test func `a destination whose start was refused takes another migration`() async throws {
        let ferrying = try await Ferrying { $0.clock.behave { $0.acquire = .fails } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "failed")
        weak let session = await ferrying.destination.agent.incoming
        #expect(session != nil)
        #expect(
            try await soon { await ferrying.destination.refusal("migrate-incoming", ["uri": "127.0.0.1:0"]) == nil }
        )
        // With it goes the guest that did not start.
        #expect(try await soon { session == nil })
        #expect(try await ferrying.destination.command("query-migrate")["status"] == "setup")
    }

    @Test func `a pause at the destination lasts until migrate-recover`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60), pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-active")
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.command("migrate-pause")
        try await ferrying.source.wait(for: "postcopy-paused")
        #expect(await ferrying.destination.refusal("migrate-pause") != nil)
        try await ferrying.destination.command("migrate-recover", ["uri": .string(ferrying.address.description)])
        #expect(ferrying.wrongPages() == [])
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
    }

    @Test func `detach is accepted, as QEMU's clients say it, and nothing counts before it was sent`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let address = JSONValue.string(ferrying.relay.address.description)
        try await ferrying.source.command("migrate", ["uri": address, "detach": true])
        try await ferrying.source.wait(for: "active")
        #expect(try await ferrying.source.command("query-migrate")["ram"]?["postcopy-bytes"] == 0)
        try await ferrying.source.command("migrate-start-postcopy")
        try await ferrying.source.wait(for: "completed")
        let answer = try await ferrying.source.command("query-migrate")["ram"]
        let pages = (answer?["normal"]?.integer ?? 0) + (answer?["duplicate"]?.integer ?? 0)
        // Pages that were asked for while they were pushed are sent twice.
        #expect((640...1280).contains(pages))
    }
}

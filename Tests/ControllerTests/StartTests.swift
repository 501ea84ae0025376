import Connections
import Guest
import Identity
import OwnThread
import PageProtocol
import QMP
import RunLease
import Synchronization
import Testing

@testable import Controller

@Suite("A start", .ownThread, .timeLimit(.minutes(2)))
struct StartTests {
    @Test func `that ends with the workload's death counts as a start, and cont fails with the reason`() async throws {
        let ferrying = try await Ferrying(startsStopped: true) { $0.diesInRun.store(true, ordering: .releasing) }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-device")
        let refusal = await ferrying.destination.refusal("cont")
        #expect(refusal?.contains("its processor burned") == true, "\(refusal ?? "cont succeeds")")
        #expect(await ferrying.destination.refusal("cont")?.contains("its processor burned") == true)
        #expect(!ferrying.destination.events.contains("RESUME"))
        // The workload may have executed, so the source never runs it again.
        try await ferrying.source.wait(for: "postcopy-paused")
        #expect(try await ferrying.source.isRunning == false)
    }

    @Test func `that ends with the workload's death releases the source once every page has moved`() async throws {
        let ferrying = try await Ferrying {
            $0.holdsRun.store(true, ordering: .releasing)
            $0.diesInRun.store(true, ordering: .releasing)
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        for host in [ferrying.source, ferrying.destination] {
            #expect(try await soon { try await host.command("query-migrate")["ram"]?["remaining"] == 0 })
        }
        ferrying.landing.workload?.runGate.open()
        try await ferrying.source.wait(for: "completed")
        #expect(try await soon { ferrying.workload.isReleased.load(ordering: .acquiring) })
        // The workload may have executed at the destination, so nothing brings it back here.
        for command in ["cont", "migrate_cancel"] { #expect(await ferrying.source.refusal(command) != nil) }
        #expect(ferrying.journal.running == [])
        #expect(ferrying.journal.lines.filter { $0 == "source run" }.count == 1)
        #expect(try await ferrying.destination.isRunning == false)
    }

    @Test func `that has ended with the workload is reported to a source that reconnects`() async throws {
        // If every page arrives before the link is cut, the migration completes.
        let ferrying = try await Ferrying(cuttingAt: .running, pushes: false) {
            $0.diesInRun.store(true, ordering: .releasing)
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-paused")
        try await ferrying.source.command("migrate", ["uri": ferrying.uri, "resume": true])
        let isTold = try await soon {
            try await ferrying.source.failure?.contains("the workload has started on the destination") == true
        }
        #expect(isTold)
        try await ferrying.source.wait(for: "postcopy-paused")
        // A workload that has executed at the destination never runs at the source again.
        #expect(await ferrying.source.refusal("pageferry-destination-gone", ["has-run": false]) != nil)
        #expect(await ferrying.source.refusal("pageferry-destination-gone", ["has-run": true]) == nil)
        try await ferrying.source.wait(for: "failed")
    }

    @Test func `of the agent's own workload must finish before other commands`() async throws {
        let journal = Journal()
        let host = Host(workload: try .filled(journal: journal))
        for command in ["cont", "stop"] {
            let refusal = await host.refusal(command)
            #expect(refusal == "this agent has not started its workload yet", "\(command): \(refusal ?? "works")")
        }
        #expect(await host.refusal("migrate", ["uri": "127.0.0.1:1"]) == "this agent has not started its workload yet")
        #expect(journal.running == [])
        try await host.agent.startWorkload()
        #expect(journal.running == ["source"])
        try await host.command("stop")
    }

    @Test func `that is refused is reported as failed only once it was undone`() async throws {
        let ferrying = try await Ferrying {
            $0.clock.behave { $0.acquire = .fails }
            $0.disk.behave { $0.release = .fails }
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(forLine: "cannot undo the start, retrying")
        #expect(try await ferrying.source.command("query-migrate")["status"] == "postcopy-active")
        #expect(try await ferrying.source.isRunning == false)
        ferrying.landing.workload?.disk.behave { $0.release = .works }
        try await ferrying.source.wait(for: "failed")
        try await ferrying.source.wait(untilRunning: true)
    }

    @Test func `is not permitted while the source cannot release its locks`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        ferrying.workload.disk.behave { $0.release = .fails }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "failed")
        try await ferrying.source.wait(untilRunning: true)
        #expect(try await ferrying.source.failure?.contains("cannot release what the workload holds") == true)
        #expect(ferrying.journal.index(of: "destination run") == nil)
    }

    @Test func `that hangs does not delay the answer to a cancel`() async throws {
        let ferrying = try await Ferrying { $0.holdsRun.store(true, ordering: .releasing) }
        defer { ferrying.end() }
        try await ferrying.migrate()
        #expect(try await soon { ferrying.landing.workload?.runGate.hasVisitor == true })
        async let cancelling = ferrying.source.refusal("migrate_cancel")
        try await ferrying.destination.wait(forLine: "the source asks to have the workload back")
        let session = try #require(await ferrying.source.agent.outgoing)
        session.events.add(.cancelOverdue(1))
        #expect(await cancelling?.contains("whether the workload runs there is unknown") == true)
        // The cancel stays pending.
        ferrying.landing.workload?.failsToRun.store(true, ordering: .releasing)
        ferrying.landing.workload?.runGate.open()
        try await ferrying.source.wait(for: "cancelled")
        #expect(ferrying.journal.running == ["source"])
    }

    @Test func `whose commit is still being written outlives its session and gives the lease back`() async throws {
        let store = try HeldStore()
        let ferrying = try await Ferrying(lease: store)
        defer {
            store.gate.open()
            ferrying.end()
        }
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "active")
        store.hold([.propose])
        try await ferrying.source.command("migrate-start-postcopy")
        #expect(try await soon { store.gate.hasVisitor })
        #expect(await ferrying.source.refusal("migrate_cancel") == nil)
        try await ferrying.destination.wait(for: "cancelled")
        // Another migration takes the place of the one whose store has not answered.
        try await ferrying.destination.agent.listen(at: ferrying.address, exitsOnError: false)
        store.gate.open()
        let source = await ferrying.source.agent.instance.description
        #expect(try await soon { try store.files.newest("test").map { $0.owner == source && $0.epoch == 3 } == true })
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.command("migrate-start-postcopy")
        try await ferrying.source.wait(for: "completed")
        #expect(!ferrying.journal.ranTwice)
    }

    @Test func `at a destination of an earlier release counts as soon as it is permitted`() async throws {
        let ferrying = try await Ferrying(older: true)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(untilRunning: true)
        #expect(ferrying.wrongPages() == [])
        #expect(!ferrying.journal.ranTwice)
    }

    @Test func `at a destination of an earlier release is not tried with a run lease`() async throws {
        let ferrying = try await Ferrying(older: true, lease: try HeldStore())
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "failed")
        #expect(try await ferrying.source.failure?.contains("which a run lease needs") == true)
        #expect(try await ferrying.source.isRunning)
    }
}

import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import RunLease
import Synchronization
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
        #expect(refusal == "the workload has ended: its processor burned")
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

        func record(of epoch: UInt64, for workload: String) throws(RunLeaseError) -> LeaseRecord? {
            try files.record(of: epoch, for: workload)
        }

        func propose(
            _ record: LeaseRecord,
            following predecessor: LeaseRecord?,
            for workload: String
        ) throws(RunLeaseError) -> LeaseProposal {
            let proposal = try files.propose(record, following: predecessor, for: workload)
            if record.epoch == 2 { gate.pass() }
            return proposal
        }
    }

    @Test func `a destination that quits while it wins the lease starts nothing, and gives the lease back`()
        async throws
    {
        try await withLeaseFolder { folder in
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
    }

    private func withLeaseFolder(_ body: (String) async throws -> Void) async throws {
        let folder = NSTemporaryDirectory() + "pf-lease-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await body(folder)
    }

    @Test func `a start that fails late is undone and told of before its agent quits`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60)) { workload in
            workload.holdsRun.store(true, ordering: .releasing)
            workload.clock.behave { $0.release = .waits }
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        #expect(try await soon { ferrying.landing.workload?.runGate.hasVisitor == true })
        async let quit = ferrying.destination.refusal("quit")
        try await ferrying.destination.wait(forLine: "nothing starts here any more: the agent ends")
        // Longer than RUN is waited for.
        try await Task.sleep(for: DestinationSession.leaveTime + .milliseconds(100))
        ferrying.landing.workload?.failsToRun.store(true, ordering: .releasing)
        ferrying.landing.workload?.runGate.open()
        #expect(try await soon { ferrying.landing.workload?.clock.gate.hasVisitor == true })
        // Longer than the time between two looks at what has become of it.
        try await Task.sleep(for: .milliseconds(50))
        ferrying.landing.workload?.clock.gate.open()
        #expect(await quit == nil)
        try await ferrying.source.wait(for: "failed")
        #expect(!ferrying.source.passed.contains("postcopy-paused"))
        #expect(ferrying.journal.running == ["source"])
    }

    /// Raised when an agent that was told to end, by SIGTERM or by `quit`, does.
    private static func tellToEnd(_ host: Host, bySignal: Bool = true) -> Flag {
        let hasEnded = Flag()
        Task {
            if bySignal {
                await host.agent.quitWhenUnneeded()
            } else {
                _ = await host.refusal("quit")
            }
            hasEnded.raise()
        }
        return hasEnded
    }

    private final class Flag: Sendable {
        private let value = Atomic<Bool>(false)
        func raise() { value.store(true, ordering: .releasing) }
        var isRaised: Bool { value.load(ordering: .acquiring) }
    }

    @Test(arguments: [true, false])
    func `a destination that is told to end without a link promises first that nothing starts`(
        bySignal: Bool
    ) async throws {
        let ferrying = try await Ferrying(startsStopped: true, recovering: .seconds(60))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-device")
        ferrying.relay.end()
        try await ferrying.source.wait(for: "postcopy-paused")
        let hasEnded = LeavingTests.tellToEnd(ferrying.destination, bySignal: bySignal)
        try await ferrying.destination.wait(forLine: "nothing starts here any more: the agent ends")
        #expect(try await soon { await ferrying.destination.agent.isNeeded })
        let address = JSONValue.string(ferrying.address.description)
        try await ferrying.source.command("migrate", ["uri": address, "resume": true])
        try await ferrying.source.wait(for: "failed")
        #expect(try await ferrying.source.failure?.contains("the agent ends") == true)
        #expect(ferrying.journal.running == ["source"])
        #expect(ferrying.journal.index(of: "destination run") == nil)
        #expect(try await soon { hasEnded.isRaised })
    }

    @Test func `an agent that is told to end sees a migration through that begins before it has`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60), pushes: false) {
            $0.disk.behave { $0.load = .waits }
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        #expect(try await soon { ferrying.landing.workload?.disk.gate.hasVisitor == true })
        // The source takes its workload back, and looks for the destination to tell it so.
        ferrying.relay.end()
        try await ferrying.source.wait(for: "failed")
        try await ferrying.source.wait(untilRunning: true)
        weak let first = await ferrying.source.agent.outgoing
        let hasEnded = LeavingTests.tellToEnd(ferrying.source)
        #expect(try await soon { await first?.isLeaving == true })
        let other = TestLanding(journal: ferrying.journal)
        let destination = Host(landing: other)
        let address = try await destination.agent.listen(at: .tcp(host: "127.0.0.1", port: 0), exitsOnError: false)
        try await ferrying.source.command("migrate", ["uri": .string(address.description)])
        try await ferrying.source.command("migrate-start-postcopy")
        try await destination.wait(for: "postcopy-active")
        // The destination that is gone is looked for no more.
        #expect(try await soon { first == nil })
        #expect(!hasEnded.isRaised)
        for (region, copy) in zip(ferrying.content, try #require(other.workload).regions) {
            for page in 0..<region.pageCount {
                #expect(memcmp(region.page(page), copy.page(page), region.pageSize) == 0)
            }
        }
        try await destination.wait(for: "completed")
        #expect(try await soon { hasEnded.isRaised })
        #expect(
            await ferrying.source.refusal("migrate", ["uri": .string(address.description)])?.contains("completed")
                == true
        )
        try other.workload?.stop()
    }

    @Test func `an agent that is told to end does not look for ever for a destination in whose place somebody else is`()
        async throws
    {
        let ferrying = try await Ferrying(recovering: .seconds(600), pushes: false) {
            $0.disk.behave { $0.load = .waits }
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        #expect(try await soon { ferrying.landing.workload?.disk.gate.hasVisitor == true })
        // The relay takes what comes, and hangs up.
        await ferrying.destination.agent.incoming?.retire()
        ferrying.relay.cutAll()
        try await ferrying.source.wait(for: "failed")
        await ferrying.source.agent.quitWhenUnneeded()
        #expect(ferrying.journal.running == ["source"])
    }

    @Test func `an agent that is told to end looks no longer for who is only owed a word, also by a lease`()
        async throws
    {
        try await withLeaseFolder { folder in
            let store = try FileRunLeaseStore(directory: folder)
            let ferrying = try await Ferrying(startsStopped: true, recovering: .seconds(600), lease: store)
            defer { ferrying.end() }
            try await ferrying.migrate()
            try await ferrying.source.wait(for: "postcopy-active")
            try await ferrying.destination.wait(for: "postcopy-device")
            weak let session = await ferrying.source.agent.outgoing
            let hasEnded = LeavingTests.tellToEnd(ferrying.source)
            #expect(try await soon { await session?.isLeaving == true })
            // It takes the lease, and its workload back.
            ferrying.relay.end()
            try await ferrying.source.wait(for: "failed")
            try await ferrying.source.wait(untilRunning: true)
            #expect(try await soon { hasEnded.isRaised })
        }
    }

    @Test(arguments: [false, true])
    func `a destination that is told to end waits for what prepares the start, to undo it`(
        usesLease: Bool
    ) async throws {
        try await withLeaseFolder { folder in
            let gate = try Gate()
            let store = SlowStore(files: try FileRunLeaseStore(directory: folder), gate: gate)
            let ferrying = try await Ferrying(recovering: .seconds(60), lease: usesLease ? store : nil) {
                if !usesLease { $0.disk.behave { $0.acquire = .waits } }
            }
            defer {
                gate.open()
                ferrying.end()
            }
            try await ferrying.migrate()
            let isHeld = { usesLease ? gate.hasVisitor : ferrying.landing.workload?.disk.gate.hasVisitor == true }
            #expect(try await soon(isHeld))
            #expect(await ferrying.destination.agent.isNeeded)
            let hasEnded = LeavingTests.tellToEnd(ferrying.destination)
            // Longer than the source is waited for.
            try await Task.sleep(for: DestinationSession.leaveTime + .milliseconds(500))
            #expect(!hasEnded.isRaised)
            gate.open()
            ferrying.landing.workload?.disk.gate.open()
            try await ferrying.source.wait(for: "failed")
            #expect(try await ferrying.source.failure?.contains("the agent ends") == true)
            #expect(ferrying.journal.running == ["source"])
            #expect(ferrying.journal.index(of: "destination run") == nil)
            #expect(try await soon { hasEnded.isRaised })
        }
    }

    @Test func `a workload that has come, and ends while it moves on, is told of`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        let other = Host(landing: TestLanding(journal: ferrying.journal))
        let address = try await other.agent.listen(at: .tcp(host: "127.0.0.1", port: 0), exitsOnError: false)
        let workload = try #require(ferrying.landing.workload)
        workload.disk.behave { $0.save = .waits }
        try await ferrying.destination.command("migrate", ["uri": .string(address.description)])
        try await ferrying.destination.command("migrate-start-postcopy")
        #expect(try await soon { workload.disk.gate.hasVisitor })
        try workload.end("its processor burned")
        workload.clock.behave { $0.save = .fails }
        workload.disk.gate.open()
        try await ferrying.destination.wait(for: "failed")
        #expect(try await soon { try await ferrying.destination.failure?.contains("stays stopped") == true })
        #expect(ferrying.destination.events.contains("SHUTDOWN"))
        await ferrying.destination.agent.quitWhenUnneeded()
    }

    @Test func `a workload that ends at its source while it might run elsewhere is told of when it cannot come back`()
        async throws
    {
        let ferrying = try await Ferrying(startsStopped: true, recovering: .seconds(60))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-device")
        try ferrying.workload.end("its processor burned")
        try await ferrying.source.wait(forLine: "has ended here: its processor burned")
        #expect(!ferrying.source.events.contains("SHUTDOWN"))
        try await ferrying.destination.command("quit")
        #expect(try await soon { ferrying.source.events.contains("SHUTDOWN") })
        #expect(try await ferrying.source.failure?.contains("stays stopped") == true)
        await ferrying.source.agent.quitWhenUnneeded()
    }

    @Test func `a workload that ends at its destination before it has started comes back`() async throws {
        let ferrying = try await Ferrying(startsStopped: true, recovering: .seconds(60))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-device")
        try ferrying.landing.workload?.end("its processor burned")
        try await ferrying.source.wait(for: "failed")
        #expect(try await ferrying.source.failure?.contains("its processor burned") == true)
        try await ferrying.source.wait(untilRunning: true)
        #expect(ferrying.journal.running == ["source"])
    }

    @Test func `an agent whose workload has moved on answers its source before it ends`() async throws {
        let ferrying = try await Ferrying(cuttingAt: .completeAck, searching: .seconds(60))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "completed")
        try await ferrying.source.wait(for: "postcopy-paused")
        let third = try await ferrying.moveOn()
        try await third.wait(untilRunning: true)
        let hasEnded = LeavingTests.tellToEnd(ferrying.destination)
        #expect(await ferrying.destination.agent.isNeeded)
        try await ferrying.source.command("migrate", ["uri": ferrying.uri, "resume": true])
        try await ferrying.source.wait(for: "completed")
        #expect(try await soon { hasEnded.isRaised })
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

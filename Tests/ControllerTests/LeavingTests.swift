import Connections
import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import RunLease
import Synchronization
import Testing

@testable import Controller

/// Agents that exit, pause, or get further commands while a migration is under way.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct LeavingTests {
    @Test func `the end of a workload at its source is reported, and the workload is not migrated`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try ferrying.workload.end("its processor burned")
        try await ferrying.source.wait(forLine: "the workload has ended: its processor burned")
        #expect(ferrying.source.events.last == "SHUTDOWN")
        let refusal = await ferrying.source.refusal("migrate", ["uri": .string(ferrying.address.description)])
        #expect(refusal == "the workload has ended: its processor burned")
    }

    @Test func `a destination that quits while it waits for cont promises never to start`() async throws {
        let ferrying = try await Ferrying(startsStopped: true, recovering: .seconds(60))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-device")
        try await ferrying.destination.command("quit")
        try await ferrying.source.wait(for: "failed")
        #expect(try await ferrying.source.failure?.contains("the agent is exiting") == true)
        #expect(ferrying.journal.running == ["source"])
        #expect(ferrying.journal.index(of: "destination run") == nil)
    }

    @Test func `a destination that quits during the start undoes it and promises never to start`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60)) { $0.disk.behave { $0.acquire = .waits } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        #expect(try await soon { ferrying.landing.workload?.disk.gate.hasVisitor == true })
        async let quit = ferrying.destination.refusal("quit")
        try await ferrying.destination.wait(forLine: "nothing starts here any more: the agent is exiting")
        ferrying.landing.workload?.disk.gate.open()
        #expect(await quit == nil)
        try await ferrying.source.wait(for: "failed")
        #expect(ferrying.journal.running == ["source"])
        #expect(ferrying.journal.index(of: "destination run") == nil)
    }

    /// A store that delays a destination that has won: the record is written, but the answer does not return yet.
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

    @Test func `a destination that quits while it wins the lease starts nothing and gives the lease back`()
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
            try await ferrying.destination.wait(forLine: "nothing starts here any more: the agent is exiting")
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

    @Test func `a start that fails late is undone and reported before its agent exits`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60)) { workload in
            workload.holdsRun.store(true, ordering: .releasing)
            workload.clock.behave { $0.release = .waits }
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        #expect(try await soon { ferrying.landing.workload?.runGate.hasVisitor == true })
        async let quit = ferrying.destination.refusal("quit")
        try await ferrying.destination.wait(forLine: "nothing starts here any more: the agent is exiting")
        // More time passes than the agent waits for RUN, and for the source.
        try await skip(ferrying.clock)
        ferrying.landing.workload?.failsToRun.store(true, ordering: .releasing)
        ferrying.landing.workload?.runGate.open()
        #expect(try await soon { ferrying.landing.workload?.clock.gate.hasVisitor == true })
        // Wait for longer than the interval at which the agent checks the start.
        try await Task.sleep(for: .milliseconds(50))
        ferrying.landing.workload?.clock.gate.open()
        #expect(await quit == nil)
        try await ferrying.source.wait(for: "failed")
        #expect(!ferrying.source.passed.contains("postcopy-paused"))
        #expect(ferrying.journal.running == ["source"])
    }

    /// Lets pass more than twice ``DestinationSession/leaveTime``, in steps between which an agent can act.
    private func skip(_ clock: TestClock) async throws {
        for _ in 0..<12 {
            clock.skip(.seconds(1))
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    /// Tells an agent to exit, by SIGTERM or by `quit`, and returns a flag that is raised when the agent exits.
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
    func `a destination without a link that is told to exit first promises never to start`(
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
        try await ferrying.destination.wait(forLine: "nothing starts here any more: the agent is exiting")
        #expect(try await soon { await ferrying.destination.agent.isNeeded })
        let address = JSONValue.string(ferrying.address.description)
        try await ferrying.source.command("migrate", ["uri": address, "resume": true])
        try await ferrying.source.wait(for: "failed")
        #expect(try await ferrying.source.failure?.contains("the agent is exiting") == true)
        #expect(ferrying.journal.running == ["source"])
        #expect(ferrying.journal.index(of: "destination run") == nil)
        #expect(try await soon { hasEnded.isRaised })
    }

    @Test func `quit ends the wait of an exit for a source that must reconnect`() async throws {
        let ferrying = try await Ferrying(startsStopped: true, recovering: .seconds(600))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-device")
        ferrying.relay.end()
        try await ferrying.source.wait(for: "postcopy-paused")
        let hasEnded = LeavingTests.tellToEnd(ferrying.destination)
        try await ferrying.destination.wait(forLine: "nothing starts here any more: the agent is exiting")
        // More time passes than `quit` waits for the source, but less than an exit by a signal does.
        try await skip(ferrying.clock)
        #expect(!hasEnded.isRaised)
        let hasQuit = LeavingTests.tellToEnd(ferrying.destination, bySignal: false)
        try await skip(ferrying.clock)
        #expect(try await soon { hasQuit.isRaised && hasEnded.isRaised })
    }

    @Test func `quit ends the wait of an exit for a start that is never undone`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(600)) { workload in
            workload.failsToRun.store(true, ordering: .releasing)
            workload.clock.behave { $0.release = .waits }
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        #expect(try await soon { ferrying.landing.workload?.clock.gate.hasVisitor == true })
        let hasEnded = LeavingTests.tellToEnd(ferrying.destination)
        try await ferrying.destination.wait(forLine: "nothing starts here any more: the agent is exiting")
        for _ in 0..<10 { try await skip(ferrying.clock) }
        #expect(!hasEnded.isRaised)
        let hasQuit = LeavingTests.tellToEnd(ferrying.destination, bySignal: false)
        #expect(try await soon(ferrying.clock) { hasQuit.isRaised && hasEnded.isRaised })
    }

    @Test func `a source stops redialing a destination that is declared gone`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(600), pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(untilRunning: true)
        try await ferrying.source.wait(for: "postcopy-active")
        let session = try #require(await ferrying.source.agent.outgoing)
        ferrying.relay.end()
        try await ferrying.source.wait(for: "postcopy-paused")
        #expect(try await soon { await session.redialing.attempt != nil })
        #expect(
            try await soon {
                await ferrying.source.refusal("pageferry-destination-gone", ["has-run": true]) == nil
            }
        )
        #expect(try await soon { await session.threads.work.threads.count == 0 })
    }

    @Test func `an agent that is told to exit completes a migration that begins before it has exited`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60), pushes: false) {
            $0.disk.behave { $0.load = .waits }
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        #expect(try await soon { ferrying.landing.workload?.disk.gate.hasVisitor == true })
        // The source takes its workload back, and redials the destination to report it.
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
        // The source stops redialing the destination that is gone.
        #expect(try await soon(ferrying.clock) { first == nil })
        #expect(!hasEnded.isRaised)
        for (region, copy) in zip(ferrying.content, try #require(other.workload).regions) {
            for page in 0..<region.pageCount {
                #expect(memcmp(region.page(page), copy.page(page), region.pageSize) == 0)
            }
        }
        try await destination.wait(for: "completed")
        #expect(try await soon { hasEnded.isRaised })
        #expect(
            await ferrying.source.refusal("migrate", ["uri": .string(address.description)])?
                .contains("has moved to") == true
        )
        try other.workload?.stop()
    }

    @Test func `an agent that is told to exit stops redialing if another program answers at the destination's address`()
        async throws
    {
        let ferrying = try await Ferrying(recovering: .seconds(600), pushes: false) {
            $0.disk.behave { $0.load = .waits }
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        #expect(try await soon { ferrying.landing.workload?.disk.gate.hasVisitor == true })
        // The relay accepts each connection and closes it.
        await ferrying.destination.agent.incoming?.retire()
        ferrying.relay.cutAll()
        try await ferrying.source.wait(for: "failed")
        let hasEnded = LeavingTests.tellToEnd(ferrying.source)
        #expect(try await soon(ferrying.clock) { hasEnded.isRaised })
        #expect(ferrying.journal.running == ["source"])
    }

    @Test func `an agent that is told to exit stops redialing a destination that only needs to hear of the take-back`()
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
            // The source takes the lease and its workload back.
            ferrying.relay.end()
            try await ferrying.source.wait(for: "failed")
            try await ferrying.source.wait(untilRunning: true)
            #expect(try await soon(ferrying.clock) { hasEnded.isRaised })
        }
    }

    @Test func `a source that takes long to resume meanwhile reports the take-back to the destination`()
        async throws
    {
        try await withLeaseFolder { folder in
            let store = try FileRunLeaseStore(directory: folder)
            let ferrying = try await Ferrying(startsStopped: true, recovering: .seconds(600), lease: store)
            defer { ferrying.end() }
            try await ferrying.migrate()
            try await ferrying.source.wait(for: "postcopy-active")
            try await ferrying.destination.wait(for: "postcopy-device")
            ferrying.workload.disk.behave { $0.acquire = .waits }
            ferrying.relay.cutAll()
            #expect(try await soon { ferrying.workload.disk.gate.hasVisitor })
            try await ferrying.destination.wait(forLine: "the source asks to have the workload back")
            ferrying.workload.disk.gate.open()
            try await ferrying.source.wait(untilRunning: true)
            #expect(try await soon { await !ferrying.source.agent.isNeeded })
        }
    }

    @Test func `an agent that is told to exit stops waiting for a destination that never undoes its start`()
        async throws
    {
        try await withLeaseFolder { folder in
            let store = try FileRunLeaseStore(directory: folder)
            let ferrying = try await Ferrying(
                recovering: .seconds(600),
                answering: .milliseconds(1500),
                lease: store
            ) { $0.disk.behave { $0.acquire = .waits } }
            defer { ferrying.end() }
            try await ferrying.migrate()
            #expect(try await soon { ferrying.landing.workload?.disk.gate.hasVisitor == true })
            // The source takes the lease and its workload back, and reconnects to the destination.
            ferrying.relay.cutAll()
            try await ferrying.source.wait(for: "failed")
            try await ferrying.source.wait(untilRunning: true)
            try await ferrying.destination.wait(forLine: "the source asks to have the workload back")
            #expect(await ferrying.source.agent.isNeeded)
            await ferrying.source.agent.quitWhenUnneeded()
            try await ferrying.source.wait(forLine: "has not confirmed within 1.5 s that the workload was")
            #expect(ferrying.journal.running == ["source"])
        }
    }

    @Test(arguments: [false, true])
    func `a destination that is told to exit waits for the start's preparation and undoes it`(
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
            // More time passes than the agent waits for the source.
            try await skip(ferrying.clock)
            #expect(!hasEnded.isRaised)
            gate.open()
            ferrying.landing.workload?.disk.gate.open()
            try await ferrying.source.wait(for: "failed")
            #expect(try await ferrying.source.failure?.contains("the agent is exiting") == true)
            #expect(ferrying.journal.running == ["source"])
            #expect(ferrying.journal.index(of: "destination run") == nil)
            #expect(try await soon { hasEnded.isRaised })
        }
    }

    @Test func `the end of an arrived workload is reported while the workload moves on`() async throws {
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
        #expect(try await soon { try await ferrying.destination.failure?.contains("cannot be resumed") == true })
        #expect(ferrying.destination.events.contains("SHUTDOWN"))
        await ferrying.destination.agent.quitWhenUnneeded()
    }

    @Test func `the end of a source's workload that might run elsewhere is reported once it cannot come back`()
        async throws
    {
        let ferrying = try await Ferrying(startsStopped: true, recovering: .seconds(60))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-device")
        try ferrying.workload.end("its processor burned")
        try await ferrying.source.wait(forLine: "has moved away, and its process here is gone: its processor burned")
        #expect(!ferrying.source.events.contains("SHUTDOWN"))
        try await ferrying.destination.command("quit")
        #expect(try await soon { ferrying.source.events.contains("SHUTDOWN") })
        #expect(try await ferrying.source.failure?.contains("cannot be resumed") == true)
        await ferrying.source.agent.quitWhenUnneeded()
    }

    @Test func `the source resumes a workload whose copy ends at the destination before the start`() async throws {
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

    @Test func `an agent whose workload has moved on answers its source before it exits`() async throws {
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

    @Test func `an agent that is told to exit before its source is given up exits as failed`() async throws {
        let ferrying = try await Ferrying(recovering: .zero, searching: .seconds(60), pushes: false) {
            $0.leavesMemoryAlone.store(true, ordering: .releasing)
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-active")
        let hasEnded = LeavingTests.tellToEnd(ferrying.destination)
        ferrying.relay.cutAll()
        try await ferrying.destination.wait(for: "postcopy-paused")
        #expect(!hasEnded.isRaised)
        #expect(await ferrying.destination.refusal("pageferry-source-gone") == nil)
        #expect(try await soon { hasEnded.isRaised })
        // The agent reports the lost workload and its own exit in either order, and the first report decides.
        for _ in 1...2 {
            guard case .failed(let reason) = await ferrying.destination.agent.outcome() else {
                return _ = Issue.record("the agent exits as if every page were here")
            }
            #expect(reason.contains("the source is gone for good"))
        }
    }

    @Test(arguments: [true, false])
    func `a source whose workload was given up exits as failed, as its destination does`(quits: Bool) async throws {
        let ferrying = try await Ferrying(pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        ferrying.relay.end()
        try await ferrying.source.wait(for: "postcopy-paused")
        #expect(await ferrying.source.refusal("pageferry-destination-gone", ["has-run": true]) == nil)
        if quits {
            try await ferrying.source.command("quit")
        } else {
            await ferrying.source.agent.quitWhenUnneeded()
        }
        guard case .failed(let reason) = await ferrying.source.agent.outcome() else {
            return _ = Issue.record("the agent exits as if its workload were not lost")
        }
        #expect(reason.contains("nobody runs it"))
    }

    @Test func `a destination that is exiting still accepts the word that its source is gone`() async throws {
        let ferrying = try await Ferrying(recovering: .zero, searching: .seconds(60), pushes: false) {
            $0.leavesMemoryAlone.store(true, ordering: .releasing)
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-active")
        ferrying.relay.cutAll()
        try await ferrying.destination.wait(for: "postcopy-paused")
        await ferrying.destination.agent.end()
        #expect(await ferrying.destination.refusal("cont") == "this agent is exiting")
        #expect(await ferrying.destination.refusal("pageferry-source-gone") == nil)
        try await ferrying.destination.wait(for: "failed")
    }

    @Test func `a command that ends while its agent exits is answered with its result`() async throws {
        let commands = WaitingCommands()
        let (work, ending) = AsyncStream.makeStream(of: Void.self)
        async let answer = commands.answer {
            for await _ in work {}
            return "done"
        }
        async let exit: Void = commands.end(within: .seconds(60))
        // Once the exit has begun, further commands are refused.
        #expect(try await soon { await (try? commands.answer { "late" }) == nil })
        ending.finish()
        #expect(try await answer == "done")
        await exit
    }

    @Test func `a command that does not end is refused when its agent exits`() async throws {
        let commands = WaitingCommands()
        let (work, ending) = AsyncStream.makeStream(of: Void.self)
        let (beginning, begun) = AsyncStream.makeStream(of: Void.self)
        let answer = Task {
            try await commands.answer {
                begun.finish()
                for await _ in work {}
                return "done"
            }
        }
        for await _ in beginning {}
        await commands.end(within: .zero)
        await #expect(throws: CommandRefused(reason: "this agent is exiting")) { try await answer.value }
        ending.finish()
    }

    @Test func `quit sends one SHUTDOWN event`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.destination.command("quit")
        try await ferrying.destination.command("quit")
        #expect(ferrying.destination.events.count { $0 == "SHUTDOWN" } == 1)
    }

    @Test func `a destination whose start was refused accepts another migration`() async throws {
        let ferrying = try await Ferrying { $0.clock.behave { $0.acquire = .fails } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "failed")
        weak let session = await ferrying.destination.agent.incoming
        #expect(session != nil)
        #expect(
            try await soon { await ferrying.destination.refusal("migrate-incoming", ["uri": "127.0.0.1:0"]) == nil }
        )
        // The guest that did not start is released with the session.
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

    @Test func `detach is accepted as from QEMU's clients, and pages count only once they were sent`() async throws {
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
        // Pages that were requested while they were pushed are sent twice.
        #expect((640...1280).contains(pages))
    }
}

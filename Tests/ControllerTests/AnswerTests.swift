import Foundation
import Identity
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import RunLease
import Switchover
import Synchronization
import Testing

@testable import Controller

/// What commands are answered with is what has become of the workload.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct AnswerTests {
    @Test func `quit fails the commands that wait, with that reason, at a source`() async throws {
        let ferrying = try await Ferrying { $0.disk.behave { $0.acquire = .waits } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        #expect(try await soon { ferrying.landing.workload?.disk.gate.hasVisitor == true })
        async let cancel = ferrying.source.refusal("migrate_cancel")
        try await ferrying.source.wait(for: "cancelling")
        #expect(await ferrying.source.refusal("quit") == nil)
        #expect(await cancel == "this agent is exiting")
        // A client that asks late is answered at once.
        #expect(await ferrying.source.refusal("stop") == "this agent is exiting")
    }

    @Test func `quit fails commands that wait for a start that hangs, and those behind it`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("stop")
        ferrying.workload.holdsRun.store(true, ordering: .releasing)
        async let cont = ferrying.source.refusal("cont")
        #expect(try await soon { ferrying.workload.runGate.hasVisitor })
        async let stop = ferrying.source.refusal("stop")
        async let verify = ferrying.source.refusal("pageferry-verify")
        #expect(await ferrying.source.refusal("quit") == nil)
        #expect(await [cont, stop, verify] == Array(repeating: "this agent is exiting", count: 3))
    }

    @Test func `a migration waits in pre-switchover, if it is to, until migrate-continue`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await pauseBeforeSwitchover(ferrying.source)
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "pre-switchover")
        #expect(try await ferrying.source.isRunning == false)
        #expect(try await ferrying.source.command("query-status")["status"] == "finish-migrate")
        #expect(
            await ferrying.source.refusal("migrate-continue", ["state": "device"])
                == "the migration does not wait in device, it is pre-switchover"
        )
        #expect(await ferrying.source.refusal("migrate-continue", ["state": "pre-switchover"]) == nil)
        try await ferrying.source.wait(for: "completed")
        #expect(ferrying.source.passed.prefix(5) == ["none", "setup", "active", "pre-switchover", "device"])
        #expect(ferrying.wrongPages() == [])
    }

    @Test func `a migration in pre-switchover is cancelled by the operator, and by the end of its agent`() async throws
    {
        for ends in [false, true] {
            let ferrying = try await Ferrying()
            defer { ferrying.end() }
            try await pauseBeforeSwitchover(ferrying.source)
            try await ferrying.migrate()
            if ends {
                async let end: Void = ferrying.source.agent.quitWhenUnneeded()
                try await ferrying.source.wait(for: "cancelled")
                await end
            } else {
                try await ferrying.source.wait(for: "pre-switchover")
                #expect(await ferrying.source.refusal("migrate_cancel") == nil)
            }
            #expect(try await ferrying.source.isRunning)
            #expect(ferrying.journal.running == ["source"])
        }
    }

    private func pauseBeforeSwitchover(_ source: Host) async throws {
        try await source.command(
            "migrate-set-capabilities",
            ["capabilities": [["capability": "pause-before-switchover", "state": true]]]
        )
    }

    @Test func `a workload goes to the destination that was named, and to no other that answers`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        func migrate(to instance: String) async -> String? {
            await ferrying.source.refusal("migrate", ["uri": ferrying.uri, "pageferry-destination": .string(instance)])
        }
        #expect(await migrate(to: "there")?.contains("expects an instance id of 32 hexadecimal digits") == true)
        let own = await ferrying.source.agent.instance.description
        #expect(await migrate(to: own) == "the workload is already here: this agent is both source and destination")
        #expect(await migrate(to: String(repeating: "7", count: 32)) == nil)
        try await ferrying.source.wait(for: "failed")
        let failure = try #require(try await ferrying.source.failure)
        #expect(failure.contains("another agent answers at \(ferrying.relay.address)"))
        #expect(try await ferrying.source.isRunning)
        #expect(ferrying.journal.index(of: "source stop") == nil)

        // The destination may only be about to notice the end of the first link.
        #expect(await migrate(to: await ferrying.destination.agent.instance.description) == nil)
        try await ferrying.source.command("migrate-start-postcopy")
        try await ferrying.source.wait(for: "completed")
    }

    @Test func `a source that comes as the one before leaves waits for its place, for a moment`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let first = try RawSource(to: ferrying.address)
        try first.sendHello()
        try first.sendRegions()
        #expect(try await first.nonce() != nil)
        let second = try RawSource(to: ferrying.address)
        try second.sendHello()
        let third = try RawSource(to: ferrying.address)
        try third.sendHello()
        // One waits.
        #expect(await third.untilHangUp()?.contains("this agent is busy with a migration, which is setup") == true)
        first.socket.shutdown()
        #expect(try await second.nonce() != nil)

        let late = try RawSource(to: ferrying.address)
        try second.sendRegions()
        try late.sendHello()
        #expect(await late.untilHangUp()?.contains("this agent is busy with a migration, which is setup") == true)
    }

    @Test func `a migration that was cancelled is begun again at once, at a destination that waits on`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let third = Host(landing: TestLanding(journal: ferrying.journal))
        let address = try await third.agent.listen(
            at: .tcp(host: "127.0.0.1", port: 0),
            exitsOnError: true,
            waitsOn: true
        )
        for _ in 0..<20 {
            try await ferrying.source.command("migrate", ["uri": .string(address.description)])
            try await ferrying.source.wait(for: "active")
            try await ferrying.source.command("migrate_cancel")
        }
        try await ferrying.source.command("migrate", ["uri": .string(address.description)])
        try await ferrying.source.command("migrate-start-postcopy")
        try await ferrying.source.wait(for: "completed")
        try await third.command("stop")
    }

    @Test func `a provisional address gives way to the next, one that an operator chose does not`() async throws {
        func address(_ host: Host) async throws -> String? {
            try await host.command("query-migrate")["socket-address"]?[0]?["host"]?.string
        }
        func listen(_ host: Host, at address: String) async throws {
            try await host.command(
                "migrate-incoming",
                ["uri": .string("tcp:\(address)"), "exit-on-error": false, "pageferry-provisional": true]
            )
        }
        let host = Host(landing: TestLanding(journal: Journal()))
        try await listen(host, at: "127.0.0.2:0")
        #expect(try await address(host) == "127.0.0.2")
        try await listen(host, at: "127.0.0.3:0")
        #expect(try await address(host) == "127.0.0.3")
        // An address that cannot be had leaves the one before.
        let port = try await host.command("query-migrate")["socket-address"]?[0]?["port"]?.string ?? ""
        await #expect(throws: (any Error).self) { try await listen(host, at: "no.such.host.invalid:\(port)") }
        #expect(try await address(host) == "127.0.0.3")
        _ = try StreamSocket(connectingTo: SocketAddress("tcp:127.0.0.3:\(port)"))

        let chosen = Host(landing: TestLanding(journal: Journal()))
        try await chosen.command("migrate-incoming", ["uri": "tcp:127.0.0.2:0"])
        try await listen(chosen, at: "127.0.0.3:0")
        #expect(try await address(chosen) == "127.0.0.2")
    }

    @Test func `the time of a source that was sent away does not count`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let other: JSONValue = .string(String(repeating: "7", count: 32))
        try await ferrying.source.command("migrate", ["uri": ferrying.uri, "pageferry-destination": other])
        try await ferrying.source.wait(for: "failed")
        try await ferrying.destination.wait(forLine: "no link to the source at")
        try await Task.sleep(for: .milliseconds(5))
        #expect(try await ferrying.destination.command("query-migrate")["total-time"] == 0)
        #expect(try await ferrying.destination.command("pageferry-report")["total"]?.double == 0)
    }

    @Test func `both sides log that the workload has moved, and that all of its memory has`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        let address = ferrying.relay.address
        try await ferrying.source.wait(forLine: "the workload runs at \(address) now: its start was reported ")
        try await ferrying.source.wait(forLine: "the migration to \(address) has completed after ")
        try await ferrying.destination.wait(forLine: "the migration has completed after ")
    }

    @Test func `both sides count the pages alike, also those that were requested and held zeros`() async throws {
        let ferrying = try await Ferrying(pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-active")
        #expect(ferrying.wrongPages() == [])
        try await ferrying.source.wait(for: "completed")
        let here = try await ferrying.source.command("query-migrate")["ram"]
        let there = try await ferrying.destination.command("query-migrate")["ram"]
        for count in ["normal", "duplicate", "total", "remaining", "page-size", "transferred"] {
            #expect(here?[count] == there?[count], "\(count)")
        }
        #expect(there?["duplicate"] == 160 && there?["normal"] == 480)
    }

    @Test func `a page keeps its size in the answer after a migration has ended without the workload`() async throws {
        let ferrying = try await Ferrying(startsStopped: true)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-device")
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.source.command("migrate_cancel")
        try await ferrying.destination.wait(for: "cancelled")
        for host in [ferrying.source, ferrying.destination] {
            #expect(try await host.command("query-migrate")["ram"]?["page-size"] == 4096)
        }
    }

    @Test func `migrate-incoming is refused while an earlier one waits for its source`() async throws {
        let host = Host(landing: TestLanding(journal: Journal()))
        try await host.command("migrate-incoming", ["uri": "tcp:127.0.0.2:0"])
        let refusal = await host.refusal("migrate-incoming", ["uri": "tcp:127.0.0.3:0"])
        #expect(refusal?.hasPrefix("The incoming migration has already been started; ") == true)
        let address = try await host.command("query-migrate")["socket-address"]?[0]?["host"]
        #expect(address == "127.0.0.2")
    }

    @Test func `migrate-incoming in place of --listen is logged, and the agent waits on as --listen promises`()
        async throws
    {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let host = Host(landing: TestLanding(journal: ferrying.journal))
        let first = try await host.agent.listen(
            at: .tcp(host: "127.0.0.1", port: 0),
            exitsOnError: true,
            waitsOn: true
        )
        try await host.command("migrate-incoming", ["uri": "tcp:127.0.0.1:0"])
        let second = try await host.address()
        try await host.wait(forLine: "listening at \(second) as a client has asked, and no longer at \(first)")
        try await ferrying.source.command("migrate", ["uri": .string(second.description)])
        try await ferrying.source.wait(for: "active")
        try await ferrying.source.command("migrate_cancel")
        try await host.wait(forLine: "waiting for the next source at \(second)")
        #expect(try await soon { (try? await host.address()) == second })
    }

    @Test func `cancel with nothing under way does nothing, at a source and at a destination`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        for host in [ferrying.source, ferrying.destination] {
            #expect(await host.refusal("migrate_cancel") == nil)
        }
        #expect(try await ferrying.destination.address() == ferrying.address)
    }

    @Test func `cont at a destination without a source waits, and the log says for what`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        async let cont = ferrying.destination.refusal("cont")
        try await ferrying.destination.wait(
            forLine: "cont waits: no source has connected to \(ferrying.address) yet"
        )
        try await ferrying.migrate()
        #expect(await cont == nil)
    }

    @Test func `a cancel that the broken link cannot decide says that it stays in force`() async throws {
        let ferrying = try await Ferrying(startsStopped: true)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-device")
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.source.command("migrate-pause")
        let refusal = await ferrying.source.refusal("migrate_cancel")
        #expect(
            refusal?.contains("the cancel stays in force, and the next link decides it first: run migrate with") == true
        )
        try await ferrying.source.command("migrate", ["uri": ferrying.uri, "resume": true])
        try await ferrying.source.wait(for: "cancelled")
        #expect(ferrying.journal.running == ["source"])
    }

    @Test(arguments: [true, false])
    func `a destination whose start was refused shows a later cancel, at either side`(isLinked: Bool) async throws {
        let ferrying = try await Ferrying(refusal: .wait) { $0.clock.behave { $0.acquire = .fails } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        #expect(try await soon { try await ferrying.source.failure?.contains("cannot start") == true })
        if !isLinked {
            ferrying.relay.end()
            try await ferrying.source.wait(for: "failed")
        }
        let host = isLinked ? ferrying.source : ferrying.destination
        #expect(await host.refusal("migrate_cancel") == nil)
        try await ferrying.destination.wait(for: "cancelled")
        try await ferrying.source.wait(untilRunning: true)
    }

    @Test func `a destination whose source is gone ends on the operator's word, and says how many faults wait`()
        async throws
    {
        let ferrying = try await Ferrying(recovering: .zero, searching: .seconds(60), pushes: false) {
            $0.leavesMemoryAlone.store(true, ordering: .releasing)
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-active")
        #expect(
            await ferrying.destination.refusal("pageferry-source-gone")
                == "the link to the source stands: the source is not gone"
        )
        ferrying.relay.cutAll()
        try await ferrying.destination.wait(for: "postcopy-paused")
        ferrying.landing.workload?.leavesMemoryAlone.store(false, ordering: .releasing)
        #expect(
            try await soon {
                let told = try await ferrying.destination.command("query-migrate")
                let report = try await ferrying.destination.command("pageferry-report")["destination"]
                return told["pageferry-waiting-faults"]?.integer == 1
                    && told["pageferry-oldest-fault"]?.integer ?? 0 > 5
                    && report?["waitingFaults"]?.integer == 1 && report?["oldestFault"]?.double ?? 0 > 5000
            }
        )
        let refusal = await ferrying.destination.refusal("migrate_cancel")
        #expect(refusal?.hasSuffix("pageferry-source-gone") == true)
        #expect(await ferrying.destination.refusal("pageferry-source-gone") == nil)
        try await ferrying.destination.wait(for: "failed")
        #expect(try await ferrying.destination.failure?.contains("the source is gone for good") == true)
        guard case .failed = await ferrying.destination.agent.outcome() else {
            return _ = Issue.record("the agent does not end")
        }
        for again in ["migrate_cancel", "pageferry-source-gone"] {
            let answer = await ferrying.destination.refusal(again)
            #expect(answer?.contains("by the operator's word") == true, "\(answer ?? "")")
            #expect(answer?.contains("nothing is left to ") == true, "\(answer ?? "")")
        }
        // A source that was thought to be gone hears that its workload has run.
        _ = await ferrying.source.refusal("migrate", ["uri": ferrying.uri, "resume": true])
        #expect(
            try await soon { try await ferrying.source.failure?.contains("has started on the destination") == true }
        )
    }

    /// A store that cannot be reached while a test says so.
    private final class CutStore: RunLeaseStore {
        let files: HeldStore
        let isCut = Atomic<Bool>(false)

        init() throws { files = try HeldStore() }

        var name: String { files.name }
        func place(of workload: String) -> String { files.place(of: workload) }

        private func reach() throws(RunLeaseError) {
            guard !isCut.load(ordering: .acquiring) else {
                throw RunLeaseError("cannot open leases: the network is cut")
            }
        }

        func newest(_ workload: String) throws(RunLeaseError) -> LeaseRecord? {
            try reach()
            return try files.newest(workload)
        }

        func record(of epoch: UInt64, for workload: String) throws(RunLeaseError) -> LeaseRecord? {
            try reach()
            return try files.record(of: epoch, for: workload)
        }

        func propose(
            _ record: LeaseRecord,
            following predecessor: LeaseRecord?,
            for workload: String
        ) throws(RunLeaseError) -> LeaseProposal {
            try reach()
            return try files.propose(record, following: predecessor, for: workload)
        }
    }

    @Test func `a lease that could not be asked is asked again, while the destination is looked for`() async throws {
        let store = try CutStore()
        let ferrying = try await Ferrying(recovering: .seconds(60), lease: store) {
            $0.disk.behave { $0.acquire = .waits }
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        #expect(try await soon { ferrying.landing.workload?.disk.gate.hasVisitor == true })
        store.isCut.store(true, ordering: .releasing)
        // From here on the destination is dialed in vain.
        ferrying.relay.end()
        #expect(try await soon { try await ferrying.source.failure?.contains("cannot be read or written") == true })
        #expect(try await ferrying.source.command("pageferry-report")["source"]?["search"] == "lease")
        store.isCut.store(false, ordering: .releasing)
        #expect(try await soon(ferrying.clock) { ferrying.source.passed.contains("failed") })
        try await ferrying.source.wait(for: "failed")
        #expect(try await ferrying.source.isRunning)
        #expect(ferrying.journal.running == ["source"])
    }
}

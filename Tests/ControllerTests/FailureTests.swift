import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Synchronization
import Testing

@testable import Controller

/// Failures of a migration, and where the workload runs afterwards.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct FailureTests {
    /// Waits until the source has its workload back, and checks the states of both sides.
    private func expectTakenBack(
        _ ferrying: Ferrying,
        because reason: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        try await ferrying.source.wait(for: "failed", sourceLocation: sourceLocation)
        #expect(try await ferrying.source.isRunning, sourceLocation: sourceLocation)
        #expect(ferrying.journal.running == ["source"], sourceLocation: sourceLocation)
        #expect(!ferrying.journal.ranTwice, sourceLocation: sourceLocation)
        let failure = try await ferrying.source.failure ?? ""
        #expect(failure.contains(reason), sourceLocation: sourceLocation)
        #expect(!failure.contains("\n"), sourceLocation: sourceLocation)
    }

    @Test(arguments: [false, true])
    func `a workload whose move ends while it prepares is neither stopped nor resumed`(isCancelled: Bool) async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        ferrying.workload.holdsPreparation.store(true, ordering: .releasing)
        try await ferrying.migrate()
        #expect(try await soon { ferrying.workload.preparationGate.hasVisitor })
        if isCancelled {
            async let cancel = ferrying.source.refusal("migrate_cancel")
            #expect(try await soon { try await ferrying.source.failure?.contains("cancelled") == true })
            ferrying.workload.preparationGate.open()
            #expect(await cancel == nil)
            try await ferrying.source.wait(for: "cancelled")
        } else {
            ferrying.relay.end()
            #expect(try await soon { try await ferrying.source.failure != nil })
            ferrying.workload.preparationGate.open()
            try await ferrying.source.wait(for: "failed")
        }
        #expect(try await ferrying.source.isRunning)
        #expect(ferrying.journal.lines.filter { ["source run", "source stop"].contains($0) } == ["source run"])
        #expect(Set(ferrying.source.events).isDisjoint(with: ["STOP", "RESUME"]))
    }

    @Test func `a device that cannot be saved leaves the workload on the source`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        ferrying.workload.clock.behave { $0.save = .fails }
        try await ferrying.migrate()
        try await expectTakenBack(ferrying, because: "cannot save device clock: cannot save today")
        try await ferrying.destination.wait(for: "failed")
        // The reason arrives on one connection and the end of the lanes on others, in any order.
        let told = try await ferrying.destination.failure ?? ""
        #expect(told.contains("cannot save device clock") || told.contains("closed the connection"))
        #expect(ferrying.journal.index(of: "destination load disk") == nil)
    }

    @Test func `a device that cannot be loaded leaves the workload on the source`() async throws {
        let ferrying = try await Ferrying { $0.clock.behave { $0.load = .fails } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await expectTakenBack(ferrying, because: "the destination cannot load device clock: cannot load today")
        try await ferrying.destination.wait(for: "failed")
        #expect(ferrying.source.passed.suffix(2) == ["postcopy-device", "failed"])
        // The source never released the disk, so no other process could have locked it.
        #expect(ferrying.journal.index(of: "source release disk") == nil)
    }

    @Test func `a refused start is undone, and then the source resumes the workload`() async throws {
        let ferrying = try await Ferrying { $0.clock.behave { $0.acquire = .fails } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await expectTakenBack(
            ferrying,
            because: "the destination cannot start the workload: device 'clock': cannot acquire today"
        )
        try await ferrying.destination.wait(for: "postcopy-device")
        #expect(try await ferrying.destination.failure?.contains("cannot acquire today") == true)
        let undone = try #require(ferrying.journal.index(of: "destination release disk"))
        let again = try #require(ferrying.journal.lines.lastIndex(of: "source acquire disk"))
        #expect(undone < again)
    }

    @Test func `the source resumes the workload if the destination could not execute anything`() async throws {
        let ferrying = try await Ferrying { $0.failsToRun.store(true, ordering: .releasing) }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await expectTakenBack(ferrying, because: "is hot")
        #expect(ferrying.journal.index(of: "destination run") == nil)
        #expect(ferrying.journal.index(of: "destination release disk") != nil)
    }

    @Test func `the source resumes the workload if the control connection breaks before PONG`() async throws {
        let ferrying = try await Ferrying(cuttingAt: .pong, recovering: .seconds(30))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await expectTakenBack(ferrying, because: "the control link broke")
        try await ferrying.destination.wait(for: "failed")
        #expect(ferrying.journal.index(of: "destination run") == nil)
    }

    @Test(arguments: Relay.Line.allCases)
    func `the source resumes the workload if any connection breaks while devices load`(line: Relay.Line) async throws {
        let ferrying = try await Ferrying { $0.disk.behave { $0.load = .waits } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-device")
        ferrying.relay.cut(line)
        try await expectTakenBack(ferrying, because: "closed the connection")
        try await ferrying.destination.wait(for: "failed")
        // A load that finishes late changes nothing.
        ferrying.landing.workload?.disk.gate.open()
        #expect(ferrying.journal.index(of: "destination run") == nil)
    }

    @Test func `the source resumes the workload after the save if the link breaks during it`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        ferrying.workload.disk.behave { $0.save = .waits }
        try await ferrying.migrate()
        #expect(try await soon { ferrying.workload.disk.gate.hasVisitor })
        ferrying.relay.cut(.control)
        try await ferrying.destination.wait(for: "failed")
        #expect(ferrying.journal.running == [])
        ferrying.workload.disk.gate.open()
        try await expectTakenBack(ferrying, because: "closed the connection")
    }

    @Test func `the source stays stopped if the link breaks between RUN and RUNNING`() async throws {
        let ferrying = try await Ferrying(cuttingAt: .running)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-paused")
        try await ferrying.destination.wait(untilRunning: true)
        #expect(ferrying.journal.running == ["destination"])
        #expect(!ferrying.journal.ranTwice)
        #expect(
            try await ferrying.source.failure?.contains("whether the workload runs on the destination is unknown")
                == true
        )
        let refusal = await ferrying.source.refusal("cont")
        #expect(
            refusal
                == "a migration is under way: postcopy-paused; the workload may run at \(ferrying.relay.address); "
                + "send the command there"
        )
    }

    @Test func `the workload stays at the destination if the link breaks after RUNNING`() async throws {
        let ferrying = try await Ferrying(cuttingAt: .completeAck)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-paused")
        try await ferrying.destination.wait(for: "completed")
        #expect(try await ferrying.source.failure?.hasSuffix("; the workload has started on the destination") == true)
        #expect(
            await ferrying.source.refusal("migrate_cancel")
                == "the workload has started on the destination; if that is gone for good: "
                + "pageferry-destination-gone with has-run true"
        )
        #expect(ferrying.journal.running == ["destination"])
        #expect(ferrying.wrongPages() == [])
    }

    @Test func `a destination without room refuses before the workload stops, and accepts the next`() async throws {
        let ferrying = try await Ferrying(maxPages: 639)
        defer { ferrying.end() }
        // The destination may refuse at once, and a later command would then be refused as well.
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await expectTakenBack(ferrying, because: "the destination refuses the migration: 640 pages do not fit here")
        #expect(ferrying.journal.index(of: "source stop") == nil)
        try await ferrying.destination.wait(for: "setup")
        let small = Journal()
        let workload = try TestWorkload.filled(journal: small, pageCounts: [639])
        let source = Host(workload: workload)
        try await source.agent.startWorkload()
        try await source.command("migrate", ["uri": .string(ferrying.address.description)])
        try await source.command("migrate-start-postcopy")
        try await source.wait(for: "completed")
        try await ferrying.destination.wait(untilRunning: true)
    }

    @Test func `the workload keeps running if the destination cannot be reached`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let nobody = try { try Listener(at: .tcp(host: "127.0.0.1", port: 0)).address }()
        try await ferrying.source.command("migrate", ["uri": .string(nobody.description)])
        try await ferrying.source.wait(for: "failed")
        #expect(try await ferrying.source.failure?.contains("cannot connect to \(nobody): Connection refused") == true)
        #expect(ferrying.journal.running == ["source"])
        #expect(ferrying.journal.index(of: "source stop") == nil)
    }

    @Test func `a source that cannot resume stays stopped and says so`() async throws {
        let ferrying = try await Ferrying { $0.clock.behave { $0.load = .fails } }
        defer { ferrying.end() }
        ferrying.workload.disk.behave { $0.acquire = .fails }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "failed")
        let reason = "the workload cannot be resumed: device 'disk': cannot acquire today"
        try await ferrying.destination.wait(for: "failed")
        #expect(await ferrying.source.refusal("cont")?.contains(reason) == true)
        #expect(ferrying.journal.running == [])
    }
}

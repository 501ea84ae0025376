import LinuxSystem
import OwnThread
import QMP
import Synchronization
import Testing

@testable import Controller

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct CommandRefusalTests {
    @Test func `an empty agent has nothing to migrate, start, stop or check`() async throws {
        let host = Host()
        #expect(
            await host.refusal("migrate", ["uri": "127.0.0.1:1"])?.hasPrefix("there is no workload here to migrate; ")
                == true
        )
        #expect(await host.refusal("migrate-start-postcopy") == "no migration is under way; run migrate first")
        for command in ["cont", "stop", "pageferry-verify"] {
            #expect(await host.refusal(command)?.hasPrefix("there is no workload here; ") == true)
        }
        #expect(await host.refusal("sing") == "CommandNotFound: The command sing has not been found")
        #expect(
            await host.refusal("migrate-incoming", ["uri": "127.0.0.1:0"])
                == "this agent was started to take no workload"
        )
        #expect(try await host.command("query-migrate") == [:])
        #expect(try await host.command("query-name") == [:])
        #expect(try await host.command("query-status")["status"] == "prelaunch")
        let destination = Host(landing: TestLanding(journal: Journal()))
        #expect(try await destination.command("query-status") == ["status": "inmigrate", "running": false])
    }

    @Test func `migrate-continue without a migration is refused`() async throws {
        let host = Host()
        #expect(await host.refusal("migrate-continue") == "Parameter 'state' is missing")
        #expect(
            await host.refusal("migrate-continue", ["state": "asleep"])
                == "Parameter 'state' does not accept value 'asleep'"
        )
        #expect(
            await host.refusal("migrate-continue", ["state": "pre-switchover"])
                == "the migration does not wait in pre-switchover, it is none"
        )
    }

    @Test func `an error names the argument that is missing or wrong`() async throws {
        let host = Host(landing: TestLanding(journal: Journal()))
        #expect(await host.refusal("migrate") == "Parameter 'uri' is missing")
        #expect(await host.refusal("migrate", ["uri": 3]) == "Invalid parameter type for 'uri', expected: string")
        for command in ["cont", "query-status", "query-migrate-parameters"] {
            #expect(await host.refusal(command, ["now": true]) == "Parameter 'now' is unexpected")
        }
        let refusal = await host.refusal("migrate-incoming", ["uri": "nowhere"])
        #expect(refusal == "'nowhere' is not a socket address: no port; write tcp:HOST:PORT or unix:PATH")
    }

    @Test func `a stopped workload that can move only while it runs is not migrated`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        ferrying.workload.movesOnlyRunning.store(true, ordering: .releasing)
        try await ferrying.source.command("stop")
        let refusal = await ferrying.source.refusal("migrate", ["uri": .string(ferrying.address.description)])
        #expect(refusal == "the workload is stopped; run cont first")
        try await ferrying.source.command("cont")
        #expect(ferrying.journal.running == ["source"])
    }

    @Test func `a workload that has ended by itself can neither start nor move, for that reason`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try ferrying.workload.end("its processor burned")
        try await ferrying.source.wait(forLine: "the workload has ended: its processor burned")
        let address = ferrying.address.description
        #expect(
            await ferrying.source.refusal("migrate", ["uri": .string(address)])
                == "the workload has ended: its processor burned"
        )
        #expect(await ferrying.source.refusal("cont") == "the workload has ended: its processor burned")
        #expect(try await ferrying.source.command("pageferry-report")["ended"]?.string == "its processor burned")
        // The pages of the ended workload can still be checked.
        #expect(try await ferrying.source.command("pageferry-verify")["corrupt"] == 0)
    }

    @Test func `a moved workload that has ended is reported with the reason, and cannot start`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "completed")
        try await ferrying.source.wait(for: "completed")
        try ferrying.landing.workload?.end("its processor burned")
        try await ferrying.destination.wait(forLine: "the workload has ended: its processor burned")
        #expect(await ferrying.destination.refusal("cont") == "the workload has ended: its processor burned")
        #expect(try await ferrying.destination.command("pageferry-report")["ended"]?.string == "its processor burned")
        #expect(try await ferrying.source.command("pageferry-report")["ended"]?.string == nil)
    }

    @Test func `an agent that accepts no workload says why, and still reports its completed migration`() async throws {
        let journal = Journal()
        let landing = TestLanding(journal: journal)
        let workload = try TestWorkload.filled(journal: journal)
        var configuration = Agent.Configuration()
        configuration.arrivalRefusal = "nothing lands here; start another agent"
        let source = Host(workload: workload, configuration: configuration)
        let destination = Host(landing: landing)
        defer { try? landing.workload?.stop() }
        let address = try await destination.agent.listen(at: .tcp(host: "127.0.0.1", port: 0), exitsOnError: false)
        try await source.agent.startWorkload()
        try await source.command("migrate", ["uri": .string(address.description)])
        try await source.command("migrate-start-postcopy")
        try await source.wait(for: "completed")
        #expect(
            await source.refusal("migrate-incoming", ["uri": "127.0.0.1:0"])
                == "nothing lands here; start another agent"
        )
        #expect(try await source.command("query-migrate")["status"] == "completed")
    }

    @Test func `commands wait for a source's own start`() async throws {
        let journal = Journal()
        let workload = try TestWorkload.filled(journal: journal)
        workload.disk.behave { $0.acquire = .waits }
        let host = Host(workload: workload)
        defer { try? workload.stop() }
        async let starting: Void = host.agent.startWorkload()
        #expect(try await soon { workload.disk.gate.hasVisitor })
        async let continuing = host.refusal("cont")
        #expect(
            await host.refusal("migrate", ["uri": "127.0.0.1:1"])
                == "the start is under way; try again when it has ended"
        )
        #expect(journal.running == [])
        workload.disk.gate.open()
        try await starting
        #expect(await continuing == nil)
        #expect(journal.running == ["source"])
        #expect(journal.lines.count { $0 == "source run" } == 1)
    }

    @Test func `a cont that waited for a start which is refused starts nothing`() async throws {
        let journal = Journal()
        let workload = try TestWorkload.filled(journal: journal)
        workload.disk.behave { $0.acquire = .waits }
        workload.failsToRun.store(true, ordering: .releasing)
        let host = Host(workload: workload)
        let starting = Task { try await host.agent.startWorkload() }
        #expect(try await soon { workload.disk.gate.hasVisitor })
        async let continuing = host.refusal("cont")
        workload.disk.gate.open()
        await #expect(throws: (any Error).self) { try await starting.value }
        #expect(await continuing?.hasPrefix("there is no workload here; ") == true)
        #expect(journal.running == [])
    }

    @Test func `a workload is stopped while its pages are checked, and resumes if it ran before`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        #expect(try await ferrying.source.command("pageferry-verify")["corrupt"] == 0)
        #expect(ferrying.journal.running == ["source"])
        #expect(ferrying.journal.lines.suffix(2) == ["source stop", "source run"])
        try await ferrying.source.command("stop")
        #expect(try await ferrying.source.command("pageferry-verify")["corrupt"] == 0)
        #expect(ferrying.journal.running == [])
    }

    @Test func `a second migration and a second switchover are refused while one is under way`() async throws {
        let ferrying = try await Ferrying { $0.clock.behave { $0.load = .waits } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-device")
        let again = await ferrying.source.refusal("migrate", ["uri": .string(ferrying.address.description)])
        #expect(again?.hasPrefix("a migration is under way, in postcopy-device; ") == true)
        let switchover = await ferrying.source.refusal("migrate-start-postcopy")
        #expect(switchover == "the switchover was begun before, the migration is postcopy-device")
        for command in ["cont", "stop"] {
            #expect(
                await ferrying.source.refusal(command)
                    == "a migration is under way: postcopy-device; the workload is stopped for its switchover to "
                    + "\(ferrying.relay.address); migrate_cancel takes it back"
            )
        }
        #expect(await ferrying.destination.refusal("stop")?.contains("has not started here yet; run cont") == true)
        let listen = await ferrying.destination.refusal("migrate-incoming", ["uri": "127.0.0.1:0"])
        #expect(listen?.hasPrefix("a migration arrives here already, in ") == true)
        ferrying.landing.workload?.clock.gate.open()
        try await ferrying.source.wait(for: "completed")
        #expect(
            await ferrying.source.refusal("migrate", ["uri": .string(ferrying.address.description)])?
                .hasPrefix("the workload has moved to ") == true
        )
    }

    @Test func `an address that others can reach is refused without permission`() async throws {
        let host = Host(landing: TestLanding(journal: Journal()))
        let refusal = await host.refusal("migrate-incoming", ["uri": "0.0.0.0:0"])
        #expect(refusal?.hasPrefix("tcp:0.0.0.0:0 can be reached from other hosts") == true)
        #expect(refusal?.hasSuffix("use 127.0.0.1, or start the agent with --insecure") == true)
    }

    @Test func `a port that is in use is reported, and another one works`() async throws {
        let taken = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let host = Host(landing: TestLanding(journal: Journal()))
        let refusal = await host.refusal("migrate-incoming", ["uri": .string(taken.address.description)])
        #expect(refusal?.contains("Address already in use") == true)
        try await host.command("migrate-incoming", ["uri": "127.0.0.1:0"])
    }
}

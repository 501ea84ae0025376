import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Synchronization
import Testing

@testable import Controller

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct MigrationTests {
    @Test func `a workload moves: devices load before it runs, and every page is right`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        #expect(
            ferrying.source.passed == [
                "none", "setup", "active", "device", "postcopy-device", "postcopy-active", "completed",
            ]
        )
        #expect(
            ferrying.destination.passed == [
                "none", "setup", "active", "postcopy-device", "postcopy-active", "completed",
            ]
        )
        #expect(
            ferrying.source.events == [
                "setup", "active", "MIGRATION_PASS", "STOP", "device", "postcopy-device", "postcopy-active",
                "completed",
            ]
        )
        #expect(
            ferrying.destination.events == [
                "setup", "active", "postcopy-device", "postcopy-active", "RESUME", "completed",
            ]
        )
        #expect(try await ferrying.destination.isRunning)
        #expect(try await !ferrying.source.isRunning)
        #expect(ferrying.wrongPages() == [])
        #expect(ferrying.landing.workload?.disk.savedState == [7, 7, 7])
        #expect(ferrying.landing.workload?.clock.savedState == [UInt8](repeating: 5, count: 3 << 20))
        #expect(
            ferrying.journal.lines == [
                "source acquire disk", "source acquire clock", "source run", "source stop", "source save disk",
                "source save clock", "destination load disk", "destination load clock", "source release clock",
                "source release disk", "destination acquire disk", "destination acquire clock", "destination run",
            ]
        )
        #expect(!ferrying.journal.ranTwice)
    }

    @Test func `a destination started stopped waits for cont, which returns once the workload runs`() async throws {
        let ferrying = try await Ferrying(startsStopped: true)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-device")
        #expect(ferrying.journal.running == [])
        try await ferrying.destination.command("cont")
        #expect(ferrying.journal.running == ["destination"])
        #expect(try await ferrying.destination.isRunning)
        try await ferrying.source.wait(for: "completed")
        #expect(ferrying.wrongPages() == [])
    }

    @Test func `a cont before the devices have loaded waits for the start`() async throws {
        let ferrying = try await Ferrying(startsStopped: true) { $0.clock.behave { $0.load = .waits } }
        defer { ferrying.end() }
        async let cont: Void = { _ = try await ferrying.destination.command("cont") }()
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-device")
        #expect(ferrying.journal.running == [])
        ferrying.landing.workload?.clock.gate.open()
        try await cont
        #expect(ferrying.journal.running == ["destination"])
        try await ferrying.source.wait(for: "completed")
    }

    @Test func `a cont during the start waits for that start and makes no other`() async throws {
        let ferrying = try await Ferrying { $0.holdsRun.store(true, ordering: .releasing) }
        defer { ferrying.end() }
        try await ferrying.migrate()
        let isHeld = { ferrying.landing.workload?.runGate.hasVisitor ?? false }
        #expect(try await soon(isHeld))
        #expect(await ferrying.destination.refusal("stop")?.contains("has not started here yet; run cont") == true)
        async let first = ferrying.destination.refusal("cont")
        async let second = ferrying.destination.refusal("cont")
        ferrying.landing.workload?.runGate.open()
        #expect(await [first, second] == [nil, nil])
        #expect(ferrying.journal.running == ["destination"])
        try await ferrying.source.wait(for: "completed")
        #expect(ferrying.journal.lines.count { $0 == "destination run" } == 1)
    }

    @Test func `commands that start and stop wait for each other`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("stop")
        ferrying.workload.holdsRun.store(true, ordering: .releasing)
        async let cont = ferrying.source.refusal("cont")
        #expect(try await soon { ferrying.workload.runGate.hasVisitor })
        async let second = ferrying.source.refusal("cont")
        async let verify = ferrying.source.refusal("pageferry-verify")
        let migrate = await ferrying.source.refusal("migrate", ["uri": .string(ferrying.address.description)])
        #expect(migrate == "cont is under way; try again when it has ended")
        ferrying.workload.runGate.open()
        #expect(await [cont, second] == [nil, nil])
        #expect(await verify == nil)
        // The workload runs once more after the check.
        #expect(ferrying.journal.lines.count { $0 == "source run" } == 3)
    }

    @Test func `a cont whose start fails says why, and the source resumes its workload`() async throws {
        let ferrying = try await Ferrying(startsStopped: true) { $0.disk.behave { $0.acquire = .fails } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        let refusal = await ferrying.destination.refusal("cont")
        #expect(refusal == "cannot start the workload: device 'disk': cannot acquire today")
        try await ferrying.source.wait(for: "failed")
        #expect(ferrying.journal.running == ["source"])
    }

    @Test func `at the destination stop and cont stop and resume the workload`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "completed")
        try await ferrying.destination.command("stop")
        #expect(ferrying.journal.running == [])
        #expect(try await ferrying.destination.command("pageferry-verify")["pages_checked"]?.integer == 640)
        try await ferrying.destination.command("cont")
        #expect(ferrying.journal.running == ["destination"])
        try await ferrying.source.wait(for: "completed")
        let refusal = await ferrying.source.refusal("cont")
        #expect(refusal?.hasPrefix("the workload has moved to \(ferrying.relay.address) and runs there; ") == true)
        #expect(!ferrying.journal.ranTwice)
    }

    @Test func `only one migration begins when many clients run migrate at once`() async throws {
        let ferrying = try await Ferrying(maxPages: 10)
        defer { ferrying.end() }
        // The destination may refuse the migration at once, and a later command would then be refused as well.
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "failed")
        // The first migration has failed, so that each client may begin one. The listener never answers, so that the
        // migration that begins does not fail meanwhile.
        let silent = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        defer { withExtendedLifetime(silent) {} }
        let uri = silent.address.description
        let accepted = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<20 {
                group.addTask { await ferrying.source.refusal("migrate", ["uri": .string(uri)]) == nil }
            }
            return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        // On a busy machine the accepted migration may fail, and make room, before the last client sends its command.
        let states = ferrying.source.passed.drop { $0 != "failed" }.filter { $0 == "setup" || $0 == "failed" }
        #expect(accepted == states.count { $0 == "setup" } && accepted > 0)
        #expect(!zip(states, states.dropFirst()).contains { $0 == "setup" && $1 == "setup" })
    }

    @Test func `a failed migration can be retried`() async throws {
        let ferrying = try await Ferrying(cuttingAt: .ready)
        defer { ferrying.end() }
        // The link may break at once, and a later command would then be refused.
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "failed")
        #expect(ferrying.journal.running == ["source"])
        // The destination was ready, so it fails as soon as it notices the broken link. Then it is told to listen
        // again.
        try await ferrying.destination.wait(for: "failed")
        try await ferrying.destination.command("migrate-incoming", ["uri": "127.0.0.1:0"])
        let port = try await ferrying.destination.command("query-migrate")["socket-address"]?[0]?["port"]?.string
        try await ferrying.source.command("migrate", ["uri": .string("127.0.0.1:\(port ?? "")")])
        try await ferrying.source.command("migrate-start-postcopy")
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(untilRunning: true)
        #expect(ferrying.wrongPages() == [])
        #expect(!ferrying.journal.ranTwice)
    }

    @Test func `a destination listens on if it cannot listen at another address of the same port`() async throws {
        let ferrying = try await Ferrying(insecure: true)
        defer { ferrying.end() }
        guard case .tcp(_, let port) = ferrying.address else { throw Host.NeverCame() }
        // An address of RFC 5737, which no host has.
        await #expect(throws: SystemError.self) {
            try await ferrying.destination.agent.listen(at: .tcp(host: "192.0.2.1", port: port), exitsOnError: false)
        }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        #expect(ferrying.wrongPages() == [])
    }

    @Test func `a destination without a connection can be told to listen at another address`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.destination.command("migrate-incoming", ["uri": "127.0.0.1:0"])
        let port = try await ferrying.destination.command("query-migrate")["socket-address"]?[0]?["port"]?.string
        let uri = "tcp:127.0.0.1:\(port ?? "")"
        #expect(uri != ferrying.address.description)
        #expect(throws: SystemError.self) { _ = try StreamSocket(connectingTo: ferrying.address) }
        try await ferrying.source.command("migrate", ["uri": .string(uri)])
        try await ferrying.destination.wait(for: "active")
        let refusal = await ferrying.destination.refusal("migrate-incoming", ["uri": "127.0.0.1:0"])
        #expect(refusal?.hasPrefix("a migration arrives here already, in active; ") == true)
        try await ferrying.source.command("migrate-start-postcopy")
        try await ferrying.source.wait(for: "completed")
        #expect(ferrying.wrongPages() == [])
    }

    @Test func `a destination that cannot listen at a new address keeps listening at the old one`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let taken = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        for uri in [taken.address.description, "tcp:0.0.0.0:0"] {
            #expect(await ferrying.destination.refusal("migrate-incoming", ["uri": .string(uri)]) != nil)
        }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        #expect(ferrying.wrongPages() == [])
    }

    @Test func `quit makes the agent exit`() async throws {
        let host = Host()
        async let outcome = host.agent.outcome()
        try await host.command("quit")
        #expect(await outcome == .quit)
        #expect(host.events == ["SHUTDOWN"])
    }
}

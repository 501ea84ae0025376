import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import RunLease
import Synchronization
import Testing

@Suite("A migration whose link breaks", .ownThread, .serialized, .timeLimit(.minutes(2)))
struct RecoveryTests {
    @Test func `recovers by itself when RUNNING was lost`() async throws {
        let ferrying = try await Ferrying(cuttingAt: .running, recovering: .seconds(60))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await expectMoved(ferrying)
        #expect(ferrying.source.passed.contains("postcopy-paused"))
        #expect(ferrying.source.passed.contains("postcopy-recover"))
    }

    @Test(arguments: [1, 3])
    func `loses no page, however often the link breaks`(faultThreads: Int) async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60), pushes: false, faultThreads: faultThreads)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        for page in 0..<5 {
            #expect(ferrying.landing.workload?.regions[0].page(page * 7).load(as: UInt8.self) != nil)
            ferrying.relay.cutAll()
            let breaks = page + 1
            #expect(
                try await soon {
                    ferrying.source.passed.filter { $0 == "postcopy-recover" }.count >= breaks
                        && ferrying.source.passed.last == "postcopy-active"
                }
            )
        }
        #expect(ferrying.wrongPages() == [])
        try await expectMoved(ferrying)
    }

    @Test func `keeps the times of its switchover`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60), pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-active")
        func times() async throws -> [JSONValue?] {
            let source = try await ferrying.source.command("pageferry-report")["source"]
            let destination = try await ferrying.destination.command("pageferry-report")["destination"]
            return ["stop", "save", "untilLoaded", "untilRunning", "lastOperationToRun", "runToRunning"].map {
                source?[$0]
            } + ["load", "untilStarted", "start"].map { destination?[$0] }
        }
        // Wait until the first operation at the destination is known.
        #expect(try await soon { try await times().last??.double ?? 0 > 0 })
        let before = try await times()
        ferrying.relay.cutAll()
        #expect(try await soon { ferrying.source.passed.suffix(2) == ["postcopy-recover", "postcopy-active"] })
        #expect(try await times() == before)
        #expect(ferrying.wrongPages() == [])
        try await expectMoved(ferrying)
    }

    @Test func `recovers by itself while strangers crowd the destination's port`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60), pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        var crowd: [SharedSocket] = []
        for _ in 0..<40 { crowd.append(SharedSocket(try StreamSocket(connectingTo: ferrying.address))) }
        let begin = ContinuousClock.now
        ferrying.relay.cutAll()
        #expect(try await soon { ferrying.source.passed.contains("postcopy-recover") })
        // The recovery must not wait until the silent strangers time out.
        #expect(ContinuousClock.now - begin < .seconds(4))
        #expect(ferrying.wrongPages() == [])
        try await expectMoved(ferrying)
        withExtendedLifetime(crowd) {}
    }

    @Test func `is abandoned if another program answers at the destination's address`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(1), pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-active")
        // The destination's port is closed; the relay accepts each connection and closes it.
        try await ferrying.destination.command("migrate-pause")
        try await ferrying.source.wait(forLine: "something answers at that address, but")
        // The source redials at growing intervals, not as fast as its connections are closed.
        #expect((2...8).contains(ferrying.source.passed.count { $0 == "postcopy-recover-setup" }))
    }

    @Test func `is abandoned with the silence of a destination that does not answer as the reason`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(3), pushes: false, peerTimeout: .milliseconds(300))
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-active")
        ferrying.relay.end()
        try await ferrying.source.wait(for: "postcopy-paused")
        // The kernel accepts connections here, as it does for a stopped process.
        let stopped = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let address = stopped.address.description
        try await ferrying.source.command("migrate", ["uri": .string(address), "resume": true])
        try await ferrying.source.wait(forLine: "cannot reconnect to \(address): \(address) has been silent for 3")
    }

    @Test func `reconnects at growing intervals when the link breaks again at once`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(2)) {
            $0.disk.behave { $0.load = .waits }
            $0.holdsRun.store(true, ordering: .releasing)
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        #expect(try await soon { ferrying.landing.workload?.disk.gate.hasVisitor == true })
        try ferrying.landing.refusePages()
        ferrying.landing.workload?.disk.gate.open()
        #expect(try await soon { ferrying.landing.workload?.runGate.hasVisitor == true })
        // The workload must not run in such memory, not even when the test ends.
        ferrying.landing.workload?.failsToRun.store(true, ordering: .releasing)
        try await ferrying.source.wait(forLine: "cannot reconnect to ")
        #expect((2...8).contains(ferrying.source.passed.count { $0 == "postcopy-recover-setup" }))
    }

    @Test func `stays paused, and says why, when pages in flight were released`() async throws {
        let ferrying = try await Ferrying(losing: .bulk, recovering: .seconds(60), releasesMemory: true)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        let pushed = { try await ferrying.source.command("query-migrate")["ram"]?["remaining"] == 0 }
        #expect(try await soon(pushed))
        ferrying.relay.cutAll()
        let reason = "lost: --release-ram freed"
        #expect(try await soon { try await ferrying.source.failure?.contains(reason) == true })
        try await ferrying.source.wait(for: "postcopy-paused")
        #expect(ferrying.journal.running == ["destination"])
    }

    @Test func `recovers if every released page has arrived`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60), releasesMemory: true)
        defer { ferrying.end() }
        // The limit allows one page on each link and then none for an hour, so that no page is in flight.
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 1])
        try await ferrying.migrate()
        try await ferrying.destination.wait(untilRunning: true)
        let arrived = {
            let pages = try await ferrying.destination.command("pageferry-report")["destination"]?["pages"]
            return (pages?["pushed"]?.integer ?? 0) + (pages?["zero"]?.integer ?? 0)
        }
        #expect(try await soon { try await arrived() > 0 && ferrying.source.passed.last == "postcopy-active" })
        ferrying.relay.cutAll()
        #expect(try await soon { ferrying.source.passed.contains("postcopy-recover") })
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 0])
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(untilRunning: true)
    }

    @Test func `is cancelled over the next link when the cancel came too late for this one`() async throws {
        let ferrying = try await Ferrying(cuttingAt: .cancelled, recovering: .seconds(60)) {
            $0.disk.behave { $0.acquire = .waits }
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        let cancelling = Task { await ferrying.source.refusal("migrate_cancel") }
        try await ferrying.destination.wait(forLine: "the source asks to have the workload back")
        ferrying.landing.workload?.disk.gate.open()
        #expect(await cancelling.value?.contains("unknown") == true)
        try await ferrying.source.wait(for: "cancelled")
        try await ferrying.destination.wait(for: "cancelled")
        #expect(ferrying.journal.running == ["source"])
        #expect(!ferrying.journal.ranTwice)
    }

    @Test func `can be cancelled between RUN and the start, and nothing has run at the destination`() async throws {
        let ferrying = try await Ferrying { $0.disk.behave { $0.acquire = .waits } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        let cancelling = Task { try await ferrying.source.command("migrate_cancel") }
        try await ferrying.destination.wait(forLine: "the source asks to have the workload back")
        ferrying.landing.workload?.disk.gate.open()
        _ = try await cancelling.value
        #expect(ferrying.journal.running == ["source"])
        #expect(ferrying.journal.index(of: "destination run") == nil)
        try await ferrying.destination.wait(for: "cancelled")
        #expect(ferrying.source.passed.last == "cancelled")
    }

    @Test func `cannot be cancelled once the workload runs at the destination, and says so`() async throws {
        let ferrying = try await Ferrying(pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(untilRunning: true)
        try await ferrying.source.wait(for: "postcopy-active")
        #expect(
            try await soon {
                await ferrying.source.refusal("migrate_cancel")?
                    .hasPrefix("the workload has started on the destination; ") == true
            }
        )
        #expect(ferrying.wrongPages() == [])
        try await expectMoved(ferrying)
    }

    @Test func `takes the workload back by the lease when the destination has not won it`() async throws {
        let folder = NSTemporaryDirectory() + "pf-lease-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let store = try FileRunLeaseStore(directory: folder)
        let ferrying = try await Ferrying(recovering: .seconds(60), lease: store) {
            $0.disk.behave { $0.acquire = .waits }
        }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        #expect(try await soon { ferrying.landing.workload?.disk.gate.hasVisitor == true })
        ferrying.relay.cutAll()
        try await ferrying.source.wait(for: "failed")
        #expect(ferrying.journal.running == ["source"])
        // The lease refuses the start that is still under way.
        ferrying.landing.workload?.disk.gate.open()
        #expect(try await soon { try await ferrying.destination.failure != nil })
        #expect(ferrying.journal.index(of: "destination run") == nil)
        #expect(try store.newest("test")?.epoch == 2)
    }

    @Test func `does not take the workload back when the lease says that it has started`() async throws {
        let folder = NSTemporaryDirectory() + "pf-lease-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let ferrying = try await Ferrying(
            cuttingAt: .running,
            recovering: .seconds(60),
            lease: FileRunLeaseStore(directory: folder)
        )
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await expectMoved(ferrying)
        #expect(ferrying.source.passed.contains("postcopy-paused"))
    }

    private func expectMoved(_ ferrying: Ferrying) async throws {
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        #expect(ferrying.journal.running == ["destination"])
        #expect(!ferrying.journal.ranTwice)
        #expect(ferrying.wrongPages() == [])
    }
}

import Firecracker
import FirecrackerRig
import Foundation
import HugePages
import OwnThread
import Testing

/// A Firecracker microVM that moves between two hosts while it runs, and each row of the failure table.
@Suite("A microVM that moves", .ownThread, .timeLimit(.minutes(2)), .needsFirecracker)
struct MicroVMTests {
    /// A Python program that tells an agent to quit, and does not wait for the answer.
    private static let quit = """
        import socket, sys
        s = socket.socket(socket.AF_UNIX)
        s.connect(sys.argv[1])
        s.sendall(b'{"execute":"qmp_capabilities"}{"execute":"quit"}')
        s.recv(1)
        """

    /// Starts a Firecracker that cannot see its agent's process, and therefore cannot open the files that the agent
    /// offers.
    private static let apart = ["/usr/bin/unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]

    /// Checks that the guest continues at the source and finds every page right.
    private func expectHere(_ site: MoveSite) throws {
        try site.wait(site.here, toBe: .running)
        try site.expectGoingOn(site.here)
        // The keeper is no longer needed.
        try site.waitForEnd(ofProcesses: "microvm-keeper", site.here.api.socketPath)
    }

    @Test("continues its work at the destination, and is stopped at the source")
    func moves() throws {
        let site = try MoveSite(memoryMiB: 64)
        defer { site.end() }
        let before = try site.pass(site.here)
        let finished = try site.migrate()
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "completed")
        #expect(try report.value("runs_on") == "destination")
        #expect(try report.value("workload", "name") == "firecracker")
        #expect(try report.value("memory_bytes") as NSNumber == NSNumber(value: 64 << 20))
        #expect(try report.number("pages", "total") == 16384)
        // The report gives the snapshot's part of the downtime by itself.
        let (save, downtime): (Double, Double) = try (
            report.number("switchover_us", "save"), report.value("downtime_us")
        )
        #expect(save > 1000 && save < downtime, "\(save) of \(downtime)")
        #expect(try report.number("switchover_us", "load") > 0)
        let after = try site.pass(site.there)
        #expect(after >= before)
        for pass in 1...3 { #expect(try site.pass(site.there) == after + UInt64(pass)) }
        #expect(try site.here.api.instance().state == .paused)
        // The guest no longer needs its agent.
        try site.waitForEnd(ofProcesses: "microvm-keeper", site.there.api.socketPath)
        site.destination.end()
        try site.expectGoingOn(site.there)
    }

    @Test("never gets a page back that its balloon takes after the move")
    func balloon() throws {
        // Most pages are still missing when the balloon takes some.
        let site = try MoveSite(source: ["--no-push"])
        defer { site.end() }
        try site.here.guest.perform(.stop)
        try site.begin()
        try site.wait(site.there, toBe: .running)
        #expect(try site.there.guest.perform(.inflate) == 256)
        for _ in 0..<2 { try site.there.guest.perform(.pass) }
    }

    @Test("of huge pages has huge pages at the destination too")
    func hugePages() throws {
        try HugePages.with(free: 16) {
            let site = try MoveSite(huge: true)
            defer { site.end() }
            try site.pass(site.here)
            let finished = try site.migrate()
            #expect(finished.status == 0, "\(finished)")
            #expect(try Printed(finished.output).value("page_size") == 2 << 20)
            let generation = try site.pass(site.there)
            #expect(try site.pass(site.there) == generation + 1)
            // The source's Firecracker must be gone before the pages are counted again.
            site.here.end()
            site.there.end()
        }
    }

    @Test("can be stopped, continued and moved on at the destination")
    func goesOn() throws {
        let site = try MoveSite()
        defer { site.end() }
        #expect(try site.migrate().status == 0)
        try site.pass(site.there)
        _ = try site.destination.qmp("stop")
        #expect(try site.there.api.instance().state == .paused)
        _ = try site.destination.qmp("cont")
        try site.pass(site.there)
        let workspace = try Workspace()
        let (third, next) = try site.anotherDestination(on: site.hosts.source, in: workspace)
        defer {
            next.end()
            third.end()
        }
        let finished = try Executable.migrate(site.destination, next)
        #expect(finished.status == 0, "\(finished)")
        let generation = try site.pass(third)
        #expect(try site.pass(third) == generation + 1)
    }

    @Test("is moved by a command that names it, and by only one command at a time")
    func byName() throws {
        let site = try MoveSite()
        defer { site.end() }
        let guest = "firecracker:\(site.here.api.socketPath)"
        func migrate() throws -> Finished {
            try site.hosts.run(
                on: site.hosts.source,
                Executable.pageferry,
                ["migrate", "--guest", guest, "--destination", site.destination.socket]
            ).finish()
        }
        let refused = try migrate()
        #expect(refused.status == 1)
        #expect(refused.errors.contains("an agent must have the microVM"), "\(refused)")
        #expect(refused.errors.contains("process \(site.source.running.pid) has it"), "\(refused)")
        site.source.end()
        let moved = try migrate()
        #expect(moved.status == 0, "\(moved)")
        #expect(moved.output.contains("the workload runs on the destination"), "\(moved)")
        try site.expectGoingOn(site.there)
        #expect(site.processes("source", site.here.api.socketPath).isEmpty)
        // A microVM that is paused may already run elsewhere.
        let paused = try migrate()
        #expect(paused.status == 1)
        #expect(paused.errors.contains("is paused, and may run on another host"), "\(paused)")
    }

    @Test("continues at the source when its snapshot cannot be made")
    func saveFails() throws {
        let site = try MoveSite(startedBy: (MicroVMTests.apart, []))
        defer { site.end() }
        let finished = try site.migrate()
        #expect(finished.status == 1)
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "failed")
        #expect(try report.value("runs_on") == "source")
        #expect("\(finished)".contains("cannot make a snapshot of the microVM"), "\(finished)")
        try expectHere(site)
        try site.wait(site.destination, for: "failed")
        // The destination waits for the next source.
        #expect(try site.destination.qmp("query-migrate").contains("socket-address"))
        #expect(try site.there.api.instance().state == .notStarted)
    }

    @Test("continues at the source when its snapshot does not load")
    func loadFails() throws {
        let site = try MoveSite(startedBy: ([], MicroVMTests.apart))
        defer { site.end() }
        let finished = try site.migrate()
        #expect(finished.status == 1)
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "failed")
        #expect(try report.value("runs_on") == "source")
        #expect("\(finished)".contains("cannot load the snapshot"), "\(finished)")
        try expectHere(site)
        try site.wait(site.destination, for: "failed")
        // The destination waits for the next source.
        #expect(try site.destination.qmp("query-migrate").contains("socket-address"))
    }

    @Test("continues at the source when the destination dies during the load", arguments: [true, false])
    func diesLoading(agent: Bool) throws {
        let site = try MoveSite()
        defer { site.end() }
        try site.beginWithoutLoad()
        #expect(try site.here.api.instance().state == .paused)
        // Once a keeper names the socket, Firecracker may have loaded something.
        let file = try #require(try site.waitForKeeper(of: site.there).last)
        #expect(file.hasSuffix(".sock"))
        try site.waitForFile(file)
        if agent { site.destination.end() } else { site.there.end() }
        try site.wait(site.source, for: "failed")
        try site.waitForEnd(ofProcesses: "microvm-keeper", site.there.api.socketPath)
        #expect(!FileManager.default.fileExists(atPath: file))
        try expectHere(site)
        #expect(try site.there.guest.waitForEnd() == SIGKILL)
    }

    @Test("comes back when the migration is cancelled after the load, and the loaded copy is killed")
    func cancelled() throws {
        let site = try MoveSite(destination: ["--stopped"])
        defer { site.end() }
        try site.begin()
        try site.wait(site.source, for: "postcopy-active")
        #expect(try site.there.api.instance().state == .paused)
        let cancelled = try Executable.pageferry("cancel", site.source.socket)
        #expect(cancelled.status == 0, "\(cancelled)")
        try site.wait(site.source, for: "cancelled")
        try expectHere(site)
        #expect(try site.destination.running.finish().status == 1)
        #expect(try site.there.guest.waitForEnd() == SIGKILL)
    }

    @Test("can move after it came back, and never runs on two hosts when its source's agent then dies")
    func movesAfterTakeBack() throws {
        // The load at the destination fails, so that the guest comes back before another side may run it.
        let site = try MoveSite(startedBy: ([], MicroVMTests.apart))
        defer { site.end() }
        #expect(try site.migrate().status == 1)
        try expectHere(site)
        let workspace = try Workspace()
        let (other, next) = try site.anotherDestination(on: site.hosts.destination, in: workspace)
        defer {
            next.end()
            other.end()
        }
        let finished = try Executable.migrate(site.source, next)
        #expect(finished.status == 0, "\(finished)")
        site.source.end()
        try site.waitForEnd(ofProcesses: "microvm-keeper", site.here.api.socketPath)
        #expect(try site.here.api.instance().state == .paused)
        try site.expectGoingOn(other)
    }

    @Test("comes back by its lease when the destination dies before it has started")
    func diesBeforeStart() throws {
        let workspace = try Workspace()
        let lease = ["--lease", "\(workspace.path)/vm"]
        let site = try MoveSite(source: lease, destination: ["--stopped"] + lease)
        defer { site.end() }
        try site.begin()
        try site.wait(site.source, for: "postcopy-active")
        site.destination.end()
        #expect(try site.there.guest.waitForEnd() == SIGKILL)
        try site.wait(site.source, for: "failed")
        try expectHere(site)
    }

    @Test("never runs on two hosts when the link breaks during its start, and is complete when the link is back")
    func breaksInStart() throws {
        let site = try MoveSite(destination: ["--stopped"])
        defer { site.end() }
        try site.begin()
        try site.wait(site.source, for: "postcopy-active")
        kill(site.there.guest.pid, SIGSTOP)
        let cont = try Running(Executable.pageferry, ["cont", site.destination.socket])
        defer { cont.end() }
        try site.hosts.cutLink()
        try site.wait(site.source, for: "postcopy-paused")
        // The source cannot know whether the guest has started, so it must not resume the guest.
        let cancelled = try Executable.pageferry("cancel", site.source.socket)
        #expect(cancelled.status == 1 && cancelled.errors.contains("unknown"), "\(cancelled)")
        #expect(try site.here.api.instance().state == .paused)
        kill(site.there.guest.pid, SIGCONT)
        #expect(try cont.finish().status == 0)
        try site.hosts.mendLink()
        try site.wait(site.source, for: "completed")
        try site.expectGoingOn(site.there)
        #expect(try site.here.api.instance().state == .paused)
    }

    @Test("waits for its pages when the link breaks, and gets them when the link is back")
    func breaksAfterStart() throws {
        let site = try MoveSite(memoryMiB: 64, source: ["--max-bandwidth", "1MiB"])
        defer { site.end() }
        try site.begin()
        for _ in 0..<2 {
            try site.wait(site.destination, for: "postcopy-active")
            try site.hosts.cutLink()
            try site.wait(site.source, for: "postcopy-paused")
            try site.wait(site.destination, for: "postcopy-paused")
            try site.hosts.mendLink()
        }
        try site.wait(site.source, for: "completed")
        try site.expectGoingOn(site.there)
    }

    @Test("is killed, and runs nowhere, when the destination dies after the start")
    func diesAfterStart() throws {
        let site = try MoveSite(memoryMiB: 64, source: ["--max-bandwidth", "1MiB"])
        defer { site.end() }
        try site.begin()
        try site.wait(site.source, for: "postcopy-active")
        try site.wait(site.there, toBe: .running)
        site.destination.end()
        #expect(try site.there.guest.waitForEnd() == SIGKILL)
        try site.wait(site.source, for: "postcopy-paused")
        #expect(try site.here.api.instance().state == .paused)
        let lost = try Executable.pageferry("cancel", site.source.socket, "--workload-is-lost")
        #expect(lost.status == 0, "\(lost)")
        try site.wait(site.source, for: "failed")
        #expect(try site.here.api.instance().state == .paused)
    }

    @Test("is reported as lost by both sides when it ends at the destination before its last page has arrived")
    func endsThere() throws {
        let site = try MoveSite(memoryMiB: 64, source: ["--no-push"])
        defer { site.end() }
        try site.begin()
        try site.wait(site.destination, for: "postcopy-active")
        site.there.end()
        try site.wait(site.source, for: "postcopy-paused")
        let status = try Executable.pageferry("status", site.source.socket, site.destination.socket).output
        #expect(status.split(separator: "\n").allSatisfy { $0.contains("has ended") }, "\(status)")
        let lost = try Executable.pageferry("cancel", site.source.socket, "--workload-is-lost")
        #expect(lost.status == 0, "\(lost)")
        try site.wait(site.source, for: "failed")
        #expect(try site.here.api.instance().state == .paused)
        // The agents are no longer needed. The source reports the workload that it was to move as lost.
        for (agent, status) in [(site.source, 1), (site.destination, 0)] as [(AgentProcess, Int32)] {
            kill(agent.running.pid, SIGTERM)
            #expect(try agent.running.finish().status == status)
        }
    }

    @Test("comes back when the destination's Firecracker exits before the start")
    func endsBeforeStart() throws {
        let site = try MoveSite(destination: ["--stopped"])
        defer { site.end() }
        try site.begin()
        try site.wait(site.source, for: "postcopy-active")
        site.there.end()
        try site.wait(site.source, for: "failed")
        try expectHere(site)
        let lines = site.destination.running.errorText.split(separator: "\n")
        #expect(lines.count { $0.contains("no link") } <= 1, "\(lines)")
    }

    @Test("is not moved while it is paused or resumed through its API behind the agent's back")
    func pausedByItsAPI() throws {
        let site = try MoveSite()
        defer { site.end() }
        try site.here.api.pause()
        let refused = try Executable.migrate(site.source, site.destination)
        #expect(refused.status == 1 && refused.errors.contains("paused through its API"), "\(refused)")
        #expect(try site.here.api.instance().state == .paused)
        _ = try site.source.qmp("stop")
        try site.here.api.resume()
        let again = try Executable.migrate(site.source, site.destination)
        #expect(again.status == 1 && again.errors.contains("resumed through its API"), "\(again)")
        _ = try site.source.qmp("cont")
        try expectHere(site)
    }

    @Test("moves paused and arrives paused, after a pause through its API too", arguments: [true, false])
    func movesPaused(byAPI: Bool) throws {
        let site = try MoveSite()
        defer { site.end() }
        let before = try site.pass(site.here)
        if byAPI { try site.here.api.pause() }
        _ = try site.source.qmp("stop")
        let moved = try Executable.migrate(site.source, site.destination)
        #expect(moved.status == 0, "\(moved)")
        #expect(try site.there.api.instance().state == .paused)
        #expect(try site.here.api.instance().state == .paused)
        #expect(try Executable.pageferry("cont", site.destination.socket).status == 0)
        #expect(try site.pass(site.there) > before)
    }

    @Test("that is paused stays paused at its source when it is taken back")
    func takenBackPaused() throws {
        let site = try MoveSite(destination: ["--stopped"])
        defer { site.end() }
        _ = try site.source.qmp("stop")
        try site.begin()
        try site.wait(site.source, for: "postcopy-active")
        #expect(try Executable.pageferry("cancel", site.source.socket).status == 0)
        try site.wait(site.source, for: "cancelled")
        #expect(try site.here.api.instance().state == .paused)
        _ = try site.source.qmp("cont")
        try expectHere(site)
    }

    @Test("keeps an agent that is told to exit alive while its start is pending", arguments: [true, false])
    func toldToEndInStart(bySignal: Bool) throws {
        let site = try MoveSite(destination: ["--stopped"])
        defer { site.end() }
        try site.begin()
        try site.wait(site.source, for: "postcopy-active")
        kill(site.there.guest.pid, SIGSTOP)
        let cont = try Running(Executable.pageferry, ["cont", site.destination.socket])
        defer { cont.end() }
        try site.waitForThread("start", of: site.destination)
        if bySignal {
            kill(site.destination.running.pid, SIGTERM)
            _ = try site.destination.running.errorLine(holding: "a migration needs this agent")
        } else {
            let quit = ["-c", MicroVMTests.quit, site.destination.socket]
            #expect(try Executable.run("/usr/bin/python3", quit).status == 0)
            _ = try site.destination.running.errorLine(holding: "nothing starts here any more")
        }
        kill(site.there.guest.pid, SIGCONT)
        // The start could no longer be refused, and `cont` reports its true result.
        #expect(try cont.finish().status == 0)
        #expect(try site.destination.running.finish().status == 0)
        guard bySignal else { return }
        try site.wait(site.source, for: "completed")
        try site.expectGoingOn(site.there)
    }

    @Test("stays at the source when its agent is told to exit before the switchover begins")
    func toldToEndBeforeSwitchover() throws {
        let site = try MoveSite()
        defer { site.end() }
        try site.link()
        // The agents wait for the switchover for longer than a peer may be silent, and exchange PINGs meanwhile.
        let end = Date(timeIntervalSinceNow: 3)
        while Date() < end { #expect(try site.source.qmp("query-migrate").contains("\"active\"")) }
        kill(site.source.running.pid, SIGTERM)
        #expect(try site.source.running.finish().status == 0)
        #expect(site.source.running.errorText.contains("cancelled"), "\(site.source.running.errorText)")
        try expectHere(site)
    }

    @Test("is not taken back by a cancel at its destination, nor by an agent that is told to exit while it is needed")
    func asksTheWrongSide() throws {
        let site = try MoveSite(memoryMiB: 64, source: ["--max-bandwidth", "20MiB"])
        defer { site.end() }
        try site.begin()
        try site.wait(site.destination, for: "postcopy-active")
        let refused = try Executable.pageferry("cancel", site.destination.socket)
        #expect(refused.status == 1 && refused.errors.contains("no cancel takes it back"), "\(refused)")
        for agent in [site.source, site.destination] {
            kill(agent.running.pid, SIGTERM)
            _ = try agent.running.errorLine(holding: "a migration needs this agent")
        }
        #expect(try site.source.running.finish().status == 0)
        #expect(try site.destination.running.finish().status == 0)
        try site.expectGoingOn(site.there)
    }

    @Test("cannot arrive where there is no Firecracker, or one that already has a microVM")
    func noPlace() throws {
        let site = try MoveSite()
        defer { site.end() }
        for (socket, reason) in [
            ("\(site.workspace.path)/none", "no Firecracker answers at"), (site.here.api.socketPath, "for itself"),
        ] {
            let refused = try Executable.pageferry(
                "destination",
                "--qmp",
                site.workspace.file("c.sock"),
                "--guest",
                "firecracker:\(socket)"
            )
            #expect(refused.status == 1 && refused.errors.contains(reason), "\(refused)")
        }
        site.source.end()
        let refused = try Executable.pageferry(
            "destination",
            "--qmp",
            site.workspace.file("c.sock"),
            "--guest",
            "firecracker:\(site.here.api.socketPath)"
        )
        #expect(refused.status == 1 && refused.errors.contains("start another Firecracker"), "\(refused)")
    }

    @Test("waits for its pages when the source dies after the start, and never runs at the source again")
    func sourceDies() throws {
        let site = try MoveSite(memoryMiB: 64, source: ["--max-bandwidth", "1MiB"])
        defer { site.end() }
        try site.begin()
        try site.wait(site.there, toBe: .running)
        site.source.end()
        try site.wait(site.destination, for: "postcopy-paused")
        #expect(try site.destination.qmp("query-status").contains("\"running\""))
        // A keeper that would resume the guest here has had the time to do so.
        try site.waitForEnd(ofProcesses: "microvm-keeper", site.here.api.socketPath)
        #expect(try site.here.api.instance().state == .paused)
    }

    @Test("moves to the end although the migrate command has detached or died", arguments: ["--detach", "--json"])
    func migrateLeaves(option: String) throws {
        let site = try MoveSite(memoryMiB: 64)
        defer { site.end() }
        site.source.end()
        let migrate = try site.hosts.run(
            on: site.hosts.source,
            Executable.pageferry,
            [
                "migrate", "--guest", "firecracker:\(site.here.api.socketPath)", "--destination",
                site.destination.socket, option,
            ]
        )
        defer { migrate.end() }
        if option == "--detach" {
            #expect(try migrate.finish().status == 0)
        } else {
            try site.wait(site.destination, for: "postcopy-active")
            migrate.end()
        }
        try site.wait(site.destination, for: "completed")
        try site.waitForEnd(ofProcesses: "source", site.here.api.socketPath)
        try site.expectGoingOn(site.there)
        let words = migrate.errorText.split(separator: " ").map(String.init)
        let socket = try #require(words.first { $0.hasPrefix("unix:/tmp/pageferry-") }).split(separator: "\n")[0]
            .dropFirst(5)
        #expect(!FileManager.default.fileExists(atPath: String(socket)))
    }

    @Test("that is paused stays paused at its source when its agent dies during the move")
    func agentOfPausedDies() throws {
        let site = try MoveSite()
        defer { site.end() }
        _ = try site.source.qmp("stop")
        try site.beginWithoutLoad()
        // Only a keeper could resume the microVM.
        #expect(site.processes("microvm-keeper", site.here.api.socketPath).isEmpty)
        site.source.end()
        #expect(try site.here.api.instance().state == .paused)
    }

    @Test("continues at the source when its agent dies before another side may run it")
    func agentDiesBeforeRun() throws {
        let site = try MoveSite()
        defer { site.end() }
        try site.beginWithoutLoad()
        #expect(try site.here.api.instance().state == .paused)
        // A service manager also sends SIGTERM to all processes of a service.
        for keeper in site.processes("microvm-keeper") { kill(keeper, SIGTERM) }
        site.source.end()
        try expectHere(site)
    }
}

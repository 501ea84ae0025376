import FirecrackerRig
import Foundation
import HugePages
import LinuxSystem
import OwnThread
import Testing

/// Restored guests whose handler dies as a whole, and the handler that comes after it.
@Suite("A restored guest whose handler dies", .ownThread, .timeLimit(.minutes(2)))
struct AdoptionTests {
    @Test("is served by the next handler, and loses no fault of the time between", arguments: GuestKind.available)
    func adopted(kind: GuestKind) throws {
        let site = try RestoreSite(kind, memoryMiB: 64)
        defer { site.end() }
        let guest = try site.restore()
        guest.send(.dispersed)
        guest.send(.pass)
        let worker = try site.worker(1)
        site.killHandler()
        kill(worker, SIGKILL)
        try site.startNextHandler()
        _ = try site.handler.errorLine(holding: "process \(guest.pid) at unix:\(site.socket) was adopted")
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
        // The next handler replaces dead workers, and serves new guests too.
        kill(try site.worker(1), SIGKILL)
        #expect(try guest.perform(.pass) == 2)
        #expect(try site.restore().perform(.pass) == 1)
    }

    @Test("is served by its worker until the next handler replaces that", arguments: GuestKind.available)
    func workerLives(kind: GuestKind) throws {
        let site = try RestoreSite(kind, memoryMiB: 64)
        defer { site.end() }
        let guest = try site.restore()
        let worker = try site.worker(1)
        #expect(try guest.perform(.inflate) == 256)
        site.killHandler()
        // The worker still serves, and notes what the balloon takes.
        #expect(try guest.perform(.inflate) == 512)
        guest.send(.pass)
        try site.startNextHandler()
        _ = try site.handler.errorLine(holding: "worker \(worker) was ended")
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
        #expect(try guest.perform(.inflate) == 768)
        #expect(try guest.perform(.pass) == 2)
    }

    @Test("of huge pages is served by the next handler")
    func hugePages() throws {
        try HugePages.with(free: 8) {
            let site = try RestoreSite(.standIn)
            defer { site.end() }
            let guest = try StandIn.restore([16 << 20], pageSize: 2 << 20, with: site.socket, in: site.workspace.path)
            defer { guest.end() }
            #expect(try guest.perform(.inflate) == 512)
            site.killHandler()
            try site.startNextHandler()
            #expect(try guest.perform(.pass) == 1)
            guest.end()
        }
    }

    @Test("is one of many that the next handler adopts", arguments: GuestKind.available)
    func many(kind: GuestKind) throws {
        let count = kind == .standIn ? 50 : 20
        let site = try RestoreSite(kind)
        defer { site.end() }
        let guests = try (0..<count).map { _ in try site.restore() }
        let workers = try guests.map { try site.worker(of: $0) }
        for guest in guests { guest.send(.pass) }
        site.killHandler()
        for worker in workers { kill(worker, SIGKILL) }
        try site.startNextHandler()
        for guest in guests { #expect(try guest.wait(for: "pass", seconds: 60) == 1) }
        #expect(try guests.allSatisfy { try $0.perform(.pass) == 2 })
    }

    @Test("is served on, and so are new guests, after a SIGHUP")
    func hangUp() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let guest = try site.restore()
        kill(site.handler.pid, SIGHUP)
        _ = try site.handler.errorLine(holding: "SIGHUP: there is no configuration file, and the log level is info")
        #expect(try guest.perform(.pass) == 1)
        #expect(try site.restore().perform(.pass) == 1)
    }

    @Test("is forgotten once it has ended, and leaves no file")
    func ended() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let (guest, other) = (try site.restore(), try site.restore())
        _ = try site.worker(2)
        site.killHandler()
        guest.end()
        try site.startNextHandler()
        _ = try site.handler.errorLine(holding: "process \(guest.pid) has ended since its handler died")
        #expect(try other.perform(.pass) == 1)
        other.end()
        _ = try site.handler.errorLine(holding: "stopped serving process \(other.pid)")
        kill(site.handler.pid, SIGTERM)
        #expect(try site.handler.finish().status == 0)
        #expect(try FileManager.default.contentsOfDirectory(atPath: site.state).isEmpty)
    }

    @Test("keeps its handler's folder, which a second handler is refused")
    func twoHandlers() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let second = try Executable.pageferry(
            "attach",
            "--socket",
            site.workspace.file("second.sock"),
            "--from",
            site.address,
            "--state",
            site.state
        )
        #expect(second.status == 1, "\(second)")
        #expect(second.errors.contains("process \(site.handler.pid) uses it"), "\(second)")
    }

    @Test("is named with the reason and gets its policy if it cannot be adopted", arguments: ["kill", "hold"])
    func notAdopted(policy: String) throws {
        let site = try RestoreSite(.standIn, "--on-lost", policy)
        defer { site.end() }
        func replace(_ record: String, _ text: String) throws {
            try text.write(toFile: "\(record).guest", atomically: false, encoding: .utf8)
        }
        let reasons: [(damage: (String) throws -> Void, reason: String)] = [
            ({ try replace($0, "{\"version\": 99}") }, "version 99"),
            ({ try replace($0, "{\"ver") }, "is damaged"),
            ({ try replace($0, "") }, "is damaged"),
            ({ #expect(truncate("\($0).state", 4096) == 0) }, "has 4096 bytes instead of"),
            ({ try FileManager.default.removeItem(atPath: "\($0).state") }, "cannot open"),
            ({ chmod("\($0).state", 0o666) }, "not a regular file of this user alone"),
        ]
        let guests = try (0...reasons.count).map { _ in try site.restore() }
        let workers = try (1...guests.count).map { try site.worker($0) }
        for guest in guests { _ = try guest.perform(.workingSet) }
        site.killHandler()
        for worker in workers { kill(worker, SIGKILL) }
        let files = try FileManager.default.contentsOfDirectory(atPath: site.state)
        for (guest, (damage, _)) in zip(guests, reasons) {
            let record = try #require(files.first { $0.hasPrefix("\(guest.pid)-") && $0.hasSuffix(".guest") })
            try damage("\(site.state)/\(record.dropLast(".guest".count))")
        }
        try site.startNextHandler()
        for (guest, (_, reason)) in zip(guests, reasons) {
            let line = try site.handler.errorLine(holding: "cannot serve process \(guest.pid) of an earlier handler")
            #expect(line.contains(reason), "\(line)")
            if policy == "kill" {
                #expect(line.hasSuffix("it is killed"), "\(line)")
                #expect(try guest.waitForEnd() == SIGKILL)
            } else {
                #expect(line.hasSuffix("it waits for its pages for ever; end it"), "\(line)")
            }
        }
        #expect(try guests[reasons.count].perform(.pass) == 1)
    }

    @Test("needs the next handler no more if it got all of its pages before")
    func complete() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let guest = try site.restore()
        #expect(try guest.perform(.workingSet) == 1)
        site.killHandler()
        #expect(try guest.perform(.pass) == 1)
        try site.startNextHandler()
        _ = try site.handler.errorLine(
            holding: "process \(guest.pid) at unix:\(site.socket) needs its server and this handler no more"
        )
        #expect(try guest.perform(.pass) == 2)
    }

    @Test("is served by the next handler although the relay that handed it over has ended")
    func endedRelay() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let program = Workspace.fixture("hand_off_forms.py")
        let guest = try site.run(
            "/usr/bin/python3",
            ["-B", program, site.socket, site.snapshot.memory, "ended-relay"]
        )
        _ = try guest.line(holding: "read")
        let worker = try site.worker(1)
        site.killHandler()
        try site.startNextHandler()
        _ = try site.handler.errorLine(holding: "worker \(worker) was ended")
        _ = try site.handler.errorLine(holding: "was adopted with ")
        // The next worker of this handler continues too.
        kill(try site.worker(1), SIGKILL)
        _ = try site.worker(2)
        kill(guest.pid, SIGUSR1)
        #expect(try guest.finish().output.contains("0 of 4096 pages are wrong"))
        _ = try site.handler.errorLine(holding: "stopped serving")
    }

    @Test("counts for the user that it had when it handed its memory over")
    func user() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        #expect(chmod(site.workspace.path, 0o755) == 0)
        let socket = site.workspace.file("u.sock")
        let options = [
            "--socket", socket, "--socket-mode", "0666", "--state", site.workspace.file("state"),
            "--max-guests-per-uid", "1",
        ]
        func start() throws -> Running {
            try site.ready(try site.run(Executable.pageferry, site.arguments(options)))
        }
        func restore() throws -> Running {
            try site.python("hand_off_forms.py", socket, site.snapshot.memory, "dropped")
        }
        let handler = try start()
        let guest = try restore()
        _ = try guest.line(holding: "read")
        kill(handler.pid, SIGKILL)
        // The handler was killed.
        _ = try? handler.finish()
        let next = try start()
        _ = try next.errorLine(holding: "was adopted")
        let other = try restore()
        _ = try next.errorLine(holding: "refused process \(other.pid)")
        #expect(next.errorText.contains("user 65534 has 1 guests"), "\(next.errorText)")
        kill(guest.pid, SIGUSR1)
        #expect(try guest.finish().output.contains("0 of 4096 pages are wrong"))
    }

    @Test("keeps its worker if the next handler cannot serve its live page, and exits")
    func takenPort() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let guest = try site.restore()
        #expect(try guest.perform(.workingSet) == 1)
        let worker = try site.worker(1)
        site.killHandler()
        let taken = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let address = "\(taken.address)".dropFirst("tcp:".count)
        let arguments = site.arguments(["--socket", site.socket, "--state", site.state, "--http", "\(address)"])
        let refused = try Executable.run(Executable.pageferry, arguments)
        #expect(refused.status == 1, "\(refused)")
        #expect(kill(worker, 0) == 0 && !refused.errors.contains("was adopted"), "\(refused)")
        #expect(try guest.perform(.pass) == 1)
    }

    @Test("is never mistaken for another process with its number")
    func otherProcess() throws {
        let site = try RestoreSite(.standIn, "--on-lost", "kill")
        defer { site.end() }
        let guest = try site.restore()
        _ = try site.worker(1)
        site.killHandler()
        // The record names a process that was started at another time.
        let bystander = try Running("/bin/sleep", ["60"])
        defer { bystander.end() }
        let record = try #require(
            try FileManager.default.contentsOfDirectory(atPath: site.state).first { $0.hasSuffix(".guest") }
        )
        let wrong = "\(site.state)/\(bystander.pid)-1.guest"
        try FileManager.default.copyItem(atPath: "\(site.state)/\(record)", toPath: wrong)
        try site.startNextHandler()
        _ = try site.handler.errorLine(holding: "process \(bystander.pid) has ended since its handler died")
        #expect(try guest.perform(.pass) == 1)
        #expect(kill(bystander.pid, 0) == 0)
    }

    @Test("is not looked for in a folder that others may change")
    func openFolder() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let folder = site.workspace.file("open")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        chmod(folder, 0o777)
        let refused = try Executable.pageferry(
            "attach",
            "--socket",
            site.workspace.file("second.sock"),
            "--from",
            site.address,
            "--state",
            folder
        )
        #expect(refused.status == 1, "\(refused)")
        #expect(refused.errors.contains("other users may change it"), "\(refused)")
    }
}

import FirecrackerRig
import Foundation
import HTTPClient
import HugePages
import LinuxSystem
import OwnThread
import Testing

/// Restored guests that get all of their pages, and need nobody then.
@Suite("A restored guest that has all of its pages", .ownThread, .timeLimit(.minutes(2)))
struct FillTests {
    private static let letGo = "needs its server and this handler no more"

    @Test("runs on without its server and its handler", arguments: GuestKind.available)
    func letGo(kind: GuestKind) throws {
        let site = try RestoreSite(kind, memoryMiB: 64, "--fill")
        defer { site.end() }
        let guest = try site.restore()
        #expect(try guest.perform(.inflate) == 256)
        _ = try site.handler.errorLine(holding: FillTests.letGo)
        #expect(try FileManager.default.contentsOfDirectory(atPath: site.state).isEmpty)
        site.endServer()
        site.killHandler()
        #expect(try guest.perform(.pass) == 1)
        // The memory is unregistered, so that dropping pages does not wait for a reader of events.
        #expect(try guest.perform(.inflate) == 512)
        #expect(try guest.perform(.pass) == 2)
    }

    @Test("is let go too when its own touches have brought the last page, and no worker could be started")
    func byTouch() throws {
        let site = try RestoreSite(.standIn, "--give-up", "1s", "--on-lost", "kill")
        defer { site.end() }
        let guest = try site.restore()
        #expect(try guest.perform(.pass) == 1)
        _ = try site.handler.errorLine(holding: FillTests.letGo)
        try site.limitHandler(toDescriptors: 4)
        #expect(try guest.perform(.pass) == 2)
        site.killHandler()
        #expect(try guest.perform(.pass) == 3)
    }

    @Test("was filled when its operator ordered it, over a new link, and another worker went on")
    func ordered() throws {
        let workspace = try Workspace()
        let token = workspace.file("token")
        try Data("a-token-of-the-tests\n".utf8).write(to: URL(filePath: token))
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: token)
        let site = try RestoreSite(.standIn, memoryMiB: 64, "--http", "127.0.0.1:0", "--http-control", token)
        defer { site.end() }
        let page = try WatchTests.page(of: site.handler)
        func order(_ process: Int32, _ action: String, _ body: String) throws -> HTTPClient.Reply {
            let fields = ["Authorization": "Bearer a-token-of-the-tests", "Content-Type": "application/json"]
            let path = "/api/guests/\(process)/\(action)"
            return try #require(try HTTPClient.request("POST", path, at: page, fields: fields, body: body))
        }
        func shown() throws -> [String: Any]? {
            (try WatchTests.json("/api/state", at: page)["guests"] as? [[String: Any]])?.first
        }
        let guest = try site.restore()
        guest.send(.dispersed)
        _ = try guest.perform(.workingSet)
        try WatchTests.wait("the guest's figures") {
            let shown = try shown()
            return shown?["state"] as? String == "linked" && shown?["demand"] as? Int ?? 0 > 10
        }
        #expect(try order(guest.pid + 1, "fill", "{}").status == 404)
        #expect(try order(guest.pid, "cancel", "{}").status == 404)
        #expect(try order(guest.pid, "fill", #"{"rate_bytes_per_s": -1}"#).status == 400)
        #expect(try shown()?["fill"] is NSNull)
        #expect(try order(guest.pid, "fill", #"{"rate_bytes_per_s": 8388608}"#).status == 204)
        _ = try site.handler.errorLine(holding: "at most 8388608 bytes in a second, as its operator has ordered")
        kill(try site.worker(1), SIGKILL)
        _ = try site.worker(2)
        try WatchTests.wait("the new worker's figures") {
            let shown = try shown()
            return shown?["restarts"] as? Int == 1 && shown?["fill"] as? Int == 8_388_608
        }
        let metrics = try #require(try HTTPClient.request("GET", "/metrics", at: page)).body
        for line in ["pageferry_guest_resident_ratio{", "pageferry_worker_restarts", "pid=\"\(guest.pid)\""] {
            #expect(metrics.contains(line), "\(metrics)")
        }
        #expect(try order(guest.pid, "release", "{}").status == 204)
        _ = try site.handler.errorLine(holding: FillTests.letGo)
        #expect(!site.handler.errorText.contains("has lost its link"))
        try WatchTests.wait("the guest to leave") { try shown() == nil }
        site.endServer()
        #expect(try guest.perform(.pass) == 1)
    }

    @Test("goes by the name of its socket, or by the one that its process adds to the hand-off")
    func names() throws {
        let site = try RestoreSite(.standIn, "--http", "127.0.0.1:0", "--name-from", "socket")
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        let line = try site.handler.errorLine(holding: "has attached with")
        #expect(line.contains("uffd (process \(guest.pid) at unix:\(site.socket)) has attached"), "\(line)")
        let page = try WatchTests.page(of: site.handler)
        func shown() throws -> String? {
            (try WatchTests.json("/api/state", at: page)["guests"] as? [[String: Any]])?.first?["name"] as? String
        }
        try WatchTests.wait("the name") { try shown() == "uffd" }
        // The next handler keeps the name, whatever it calls its own guests.
        site.killHandler()
        let next = try site.attach("--socket", site.socket, "--state", site.state, "--name-from", "vm_id")
        let adopted = try next.errorLine(holding: "was adopted")
        #expect(adopted.contains("uffd (process \(guest.pid) at "), "\(adopted)")
        #expect(try Executable.pageferry("attach", "--name-from", "a b").status == 2)
    }

    @Test("was filled no faster than it may be")
    func rate() throws {
        let site = try RestoreSite(.standIn, "--fill=8MiB")
        defer { site.end() }
        let begin = MonotonicClock.now()
        let guest = try site.restore()
        _ = try site.handler.errorLine(holding: FillTests.letGo)
        let seconds = Double(MonotonicClock.now() - begin) / 1e9
        // 16 MiB, of which the first request has no predecessor.
        #expect(seconds > 1.8, "\(seconds)")
        #expect(try guest.perform(.pass) == 1)
    }

    @Test("got its working set first")
    func workingSetFirst() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let record = site.workspace.file("set")
        let first = try site.startHandler(["--record", record, "--window", "60s"])
        defer { first.end() }
        let recorded = try site.restore(at: first.socket)
        recorded.send(.dispersed)
        _ = try recorded.perform(.workingSet)
        recorded.end()
        _ = try first.running.errorLine(holding: "recorded in")
        let second = try site.startHandler(["--prefetch", record, "--fill=8MiB"])
        defer { second.end() }
        let guest = try site.restore(at: second.socket)
        _ = try second.running.errorLine(holding: "has its working set")
        #expect(!second.running.errorText.contains(FillTests.letGo))
        _ = try second.running.errorLine(holding: FillTests.letGo)
        #expect(try guest.perform(.pass) == 1)
    }

    @Test("got them although its worker and its server were gone for a while")
    func interrupted() throws {
        let site = try RestoreSite(.standIn, memoryMiB: 64, "--fill=32MiB")
        defer { site.end() }
        let guest = try site.restore()
        kill(try site.worker(1), SIGKILL)
        _ = try site.worker(2)
        site.endServer()
        try site.startServer()
        _ = try site.handler.errorLine(holding: FillTests.letGo)
        #expect(try guest.perform(.pass) == 1)
    }
}

import FirecrackerRig
import Foundation
import OwnThread
import Testing

/// The process of which all workers of `attach` are copies.
@Suite("The template of the workers", .ownThread, .timeLimit(.minutes(2)))
struct ForkServerTests {
    private func attach(_ site: RestoreSite) throws -> (handler: Running, socket: String) {
        let socket = site.workspace.file("u.sock")
        return (try site.attach("--socket", socket), socket)
    }

    @Test("is replaced when it is killed or stopped, and no guest notices", arguments: [SIGKILL, SIGSTOP])
    func replaced(signal: Int32) throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site)
        let first = try site.restore(at: socket)
        #expect(try first.perform(.workingSet) == 1)
        let template = try #require(try RestoreSite.template(of: handler))
        #expect(kill(template, signal) == 0)
        let second = try site.restore(at: socket)
        #expect(try second.perform(.pass) == 1)
        #expect(try first.perform(.pass) == 1)
        #expect(try RestoreSite.template(of: handler) != template)
    }

    @Test("ends with its handler, however that ends")
    func ends() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site)
        let guest = try site.restore(at: socket)
        #expect(try guest.perform(.workingSet) == 1)
        let template = try #require(try RestoreSite.template(of: handler))
        #expect(kill(handler.pid, SIGKILL) == 0)
        let deadline = Date(timeIntervalSinceNow: 10)
        while kill(template, 0) == 0 {
            try #require(Date() < deadline)
            sched_yield()
        }
    }

    @Test("makes workers of three threads at most, while nothing is fetched ahead")
    func threads() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site)
        let guest = try site.restore(at: socket)
        #expect(try guest.perform(.workingSet) == 1)
        let worker = try #require(try site.workers(of: handler).first)
        #expect(try FileManager.default.contentsOfDirectory(atPath: "/proc/\(worker)/task").count <= 3)
    }
}

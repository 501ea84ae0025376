import FirecrackerRig
import Foundation
import OwnThread
import Testing

/// Guests whose userfaultfd the service manager keeps while no handler runs.
@Suite("A guest of a handler with a descriptor store", .ownThread, .timeLimit(.minutes(2)))
struct DescriptorStoreTests {
    /// Starts a handler by a service manager, which starts it again when it is killed.
    private func manage(
        _ site: RestoreSite,
        foreign: String = "-",
        _ options: String...
    ) throws -> (manager: Running, socket: String) {
        let socket = site.workspace.file("m.sock")
        let handler = [Executable.pageferry] + site.arguments(["--state", site.workspace.file("state")] + options)
        let program = Workspace.fixture("descriptor_store.py")
        let manager = try site.run("/usr/bin/python3", ["-B", program, socket, foreign] + handler)
        _ = try manager.line(holding: "ready unix:\(socket)")
        return (manager, socket)
    }

    /// The process of the handler that was started last.
    private func handler(of manager: Running) throws -> Int32 {
        let line = manager.outputText.split(separator: "\n").last { $0.hasPrefix("started ") }
        return try #require(line.flatMap { Int32($0.dropFirst("started ".count)) })
    }

    private func restore(_ site: RestoreSite, at socket: String, as form: String = "closed") throws -> Running {
        let program = Workspace.fixture("hand_off_forms.py")
        let guest = try site.run("/usr/bin/python3", ["-B", program, socket, site.snapshot.memory, form])
        _ = try guest.line(holding: "read")
        return guest
    }

    /// Kills a handler and the workers of its guests, and waits for the next handler.
    private func killAll(_ manager: Running, _ guests: [Running]) throws {
        let handler = try handler(of: manager)
        kill(handler, SIGKILL)
        for guest in guests {
            for worker in ProcessFiles.processes(named: "pageferry-guest-\(guest.pid)") { kill(worker, SIGKILL) }
        }
        let text = try manager.output(holding: "a second handler") { $0.components(separatedBy: "ready ").count == 3 }
        #expect(text.contains("ended -9"))
    }

    @Test("is adopted although the relay that handed it over has ended, and its memory is whole")
    func endedRelay() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (manager, socket) = try manage(site)
        let guest = try restore(site, at: socket, as: "ended-relay")
        let stored = try manager.line(holding: "stored guest-")
        let relay = try #require(Int32(stored.dropFirst("stored guest-".count).prefix { $0 != "-" }))
        kill(try handler(of: manager), SIGKILL)
        for worker in ProcessFiles.processes(named: "pageferry-guest-\(relay)") { kill(worker, SIGKILL) }
        _ = try manager.errorLine(holding: "process \(relay) at unix:\(socket) was adopted")
        kill(guest.pid, SIGUSR1)
        #expect(try guest.finish().output.contains("0 of 4096 pages are wrong"))
        _ = try manager.line(holding: "removed guest-\(relay)-")
    }

    @Test("is adopted although no process has its userfaultfd, and its memory is whole")
    func adopted() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (manager, socket) = try manage(site)
        let guests = try (0..<3).map { _ in try restore(site, at: socket) }
        for guest in guests { _ = try manager.line(holding: "stored guest-\(guest.pid)-") }
        try killAll(manager, guests)
        for guest in guests {
            _ = try manager.errorLine(holding: "process \(guest.pid) at unix:\(socket) was adopted")
            kill(guest.pid, SIGUSR1)
            #expect(try guest.finish().output.contains("0 of 4096 pages are wrong"))
            _ = try manager.line(holding: "removed guest-\(guest.pid)-")
        }
    }

    @Test("is not replaced by another hand-off of its process, which waits in the socket until the guest is adopted")
    func second() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (manager, socket) = try manage(site, "--on-refused", "leave")
        let guest = try restore(site, at: socket, as: "second")
        kill(try handler(of: manager), SIGKILL)
        kill(guest.pid, SIGUSR1)
        let line = try manager.errorLine(holding: "refused process \(guest.pid)")
        #expect(line.contains("another userfaultfd of the same process"), "\(line)")
        #expect(try guest.finish().output.contains("0 of 4096 pages are wrong"))
        #expect(manager.errorText.contains("process \(guest.pid) at unix:\(socket) was adopted"))
    }

    @Test("that has ended meanwhile is dropped from the store")
    func ended() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (manager, socket) = try manage(site)
        let (guest, other) = (try restore(site, at: socket), try restore(site, at: socket))
        for guest in [guest, other] { _ = try manager.line(holding: "stored guest-\(guest.pid)-") }
        guest.end()
        _ = try? guest.finish()
        try killAll(manager, [guest, other])
        _ = try manager.line(holding: "removed guest-\(guest.pid)-")
        kill(other.pid, SIGUSR1)
        #expect(try other.finish().output.contains("0 of 4096 pages are wrong"))
    }

    @Test("is served beside a stored descriptor that is no userfaultfd, which is named")
    func foreign() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (manager, socket) = try manage(site, foreign: "guest-1-2")
        _ = try manager.errorLine(holding: "'guest-1-2' of the service manager is kept open, and nothing serves it")
        let guest = try restore(site, at: socket)
        try killAll(manager, [guest])
        kill(guest.pid, SIGUSR1)
        #expect(try guest.finish().output.contains("0 of 4096 pages are wrong"))
    }
}

import FirecrackerRig
import Foundation
import Glibc
import OwnThread
import Testing

/// The units of the package under a systemd of their own.
@Suite("A service of the package", .ownThread, .timeLimit(.minutes(4)))
struct PackagedServicesTests {
    private static let canBoot: Bool = {
        guard PackageTests.canInstall, access("/lib/systemd/systemd", X_OK) == 0 else { return false }
        // cgroup2 must be there and writable, which it is not in most containers.
        let folder = "$(findmnt -n -t cgroup2 -o TARGET | head -n 1)/pageferry-test"
        let tried = try? Executable.run("/bin/sh", ["-c", "mkdir \"\(folder)\" && rmdir \"\(folder)\""])
        return tried?.status == 0
    }()
    private static let (handler, server) = ("pageferry-attach.service", "pageferry-serve@vm.service")
    private static let socket = "/run/pageferry-uffd.sock"

    /// A room with a snapshot, its server, and the services.
    private final class Services {
        let site: RestoreSite
        let room: PackageRoom
        private let from: String

        init(_ site: RestoreSite, installing package: String) throws {
            self.site = site
            room = try PackageRoom(in: site, isBooted: true)
            for file in ["hand_off_forms.py", "pageferry_client.py"] {
                try FileManager.default.copyItem(atPath: Workspace.fixture(file), toPath: site.workspace.file(file))
            }
            // Outside /tmp, of which each service has its own.
            try room.run("install", "-m", "644", site.snapshot.memory, "/srv/vm.mem")
            try room.run("systemctl", "start", "systemd-journald.socket", "systemd-journald.service")
            try room.run("dpkg", "--force-unsafe-io", "-i", package)
            // A server that outlives the package, as one of another host does.
            try room.run("cp", "/usr/bin/pageferry", "/srv/pageferry")
            let words = room.words(["/srv/pageferry", "serve", "--snapshot", "/srv/vm.mem", "--listen", "127.0.0.1:0"])
            let far = try site.run(words[0], Array(words.dropFirst()))
            from = String(try far.line(holding: "ready").dropFirst("ready tcp:".count))
            try configure()
            try write("serve:\\n  snapshot: /srv/vm.mem\\n  listen: 127.0.0.1:0\\n", to: "/etc/pageferry/serve/vm.yaml")
            try room.run("systemctl", "enable", "--now", "pageferry-attach.socket", handler, server)
        }

        private func write(_ text: String, to path: String) throws {
            try room.run("sh", "-c", "printf '\(text)' >\(path)")
        }

        func configure(_ more: String = "") throws {
            try write("attach:\\n  from: \(from)\\n  log-level: info\\n\(more)", to: "/etc/pageferry/config.yaml")
        }

        func show(_ property: String, of unit: String = handler) throws -> String {
            try room.run("systemctl", "show", "--value", "-p", property, unit).output
                .trimmingCharacters(in: .whitespacesAndNewlines)
        }

        func wait(_ what: String, until isDone: () throws -> Bool) throws {
            let deadline = Date(timeIntervalSinceNow: 30)
            while try !isDone() {
                guard Date() < deadline else {
                    throw TestFailure("never: \(what)\n\(try room.run("journalctl", "-n", "60").output)")
                }
                usleep(50_000)
            }
        }

        func restore() throws -> GuestProcess {
            site.keep(
                try StandIn.restore(
                    [RestoreSite.memoryBytes],
                    with: socket,
                    in: site.workspace.path,
                    by: room.words([])
                )
            )
        }

        /// Restores a guest whose process has no userfaultfd of its own.
        func restoreClosed() throws -> Running {
            let program = site.workspace.file("hand_off_forms.py")
            let words = room.words(["/usr/bin/python3", "-B", program, socket, "/srv/vm.mem", "closed"])
            let guest = try site.run(words[0], Array(words.dropFirst()))
            _ = try guest.line(holding: "read")
            return guest
        }

        /// Lets such a guest read all of its pages.
        func finish(_ guest: Running) throws -> String {
            // The process that has entered the room waits for the guest's.
            let child = try ProcessFiles.text("/proc/\(guest.pid)/task/\(guest.pid)/children")
            kill(try #require(Int32(child.trimmingCharacters(in: .whitespaces))), SIGUSR1)
            return try guest.finish().output
        }
    }

    @Test(
        "is restarted, upgraded and removed, and started again after a wrong option, which no guest notices",
        .enabled(if: canBoot, "needs root, systemd, cgroup2, and a release build in PAGEFERRY")
    )
    func life() throws {
        let (handler, server) = (PackagedServicesTests.handler, PackagedServicesTests.server)
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let tests = PackageTests()
        let (first, second) = (
            try tests.package(version: "1.0", in: site), try tests.package(version: "1.1", in: site)
        )
        #expect(chmod(site.workspace.path, 0o755) == 0)
        let services = try Services(site, installing: first)
        let room = services.room
        defer { room.end() }
        let guests = try (0..<20).map { _ in try services.restore() }
        for guest in guests { #expect(try guest.perform(.workingSet) == 1) }

        // A stop is no failure, as one is that takes longer than TimeoutStopSec=.
        try room.run("systemctl", "stop", handler)
        #expect(try services.show("Result") == "success")
        try room.run("systemctl", "start", handler)
        #expect(try guests[0].perform(.pass) == 1)

        // With a wrong option, the handler is tried again, and systemd keeps what the next one needs.
        let closed = try services.restoreClosed()
        let kept = { try Int(services.show("NFileDescriptorStore")) ?? 0 }
        // The guest that has all of its pages may need none.
        try services.wait("the userfaultfds are kept") { try kept() >= 20 }
        try services.configure("  give-up: soon\\n")
        try room.run("systemctl", "restart", handler, status: 1)
        let newcomer = try services.restore()
        try services.wait("the handler is tried again") { try Int(services.show("NRestarts")) ?? 0 >= 2 }
        // The workers too.
        try room.run("systemctl", "kill", "--kill-whom=all", "-s", "KILL", handler)
        #expect(try kept() >= 20)
        #expect(try services.show("ActiveState", of: "pageferry-attach.socket") == "active")
        try services.configure()
        #expect(try newcomer.perform(.workingSet) == 1)
        #expect(try services.finish(closed).contains("0 of 4096 pages are wrong"))

        // An upgrade replaces the handler, and leaves servers alone.
        let (oldHandler, oldServer) = (try services.show("MainPID"), try services.show("MainPID", of: server))
        for guest in guests.dropFirst() { guest.send(.pass) }
        try room.run("dpkg", "--force-unsafe-io", "-i", second)
        try services.wait("the next handler is ready") {
            try services.show("MainPID") != oldHandler && services.show("ActiveState") == "active"
        }
        for guest in guests.dropFirst() { #expect(try guest.wait(for: "pass", seconds: 60) == 1) }
        #expect(try guests.allSatisfy { try $0.perform(.pass) == 2 })
        #expect(try services.show("MainPID", of: server) == oldServer)
        #expect(try newcomer.perform(.pass) == 1)

        // The workers outlive the package, whose services stay enabled until it is purged.
        let last = try services.restore()
        #expect(try last.perform(.workingSet) == 1)
        try room.run("dpkg", "-r", "pageferry")
        for unit in [handler, server, "pageferry-attach.socket"] {
            #expect(try services.show("ActiveState", of: unit) == "inactive", "\(unit)")
        }
        #expect(try last.perform(.pass) == 1)
        try room.run("dpkg", "--force-unsafe-io", "-i", second)
        #expect(try room.run("systemctl", "is-enabled", handler, server).output == "enabled\nenabled\n")
        try room.run("dpkg", "-P", "pageferry")
        let links = try room.run("sh", "-c", "ls /etc/systemd/system/*.wants | grep pageferry", status: 1)
        #expect(links.output.isEmpty, "\(links)")
    }
}

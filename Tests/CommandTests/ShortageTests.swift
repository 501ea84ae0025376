import FirecrackerRig
import Foundation
import HugePages
import LinuxSystem
import OwnThread
import Testing

/// Guests on a host that lacks memory or huge pages for them.
@Suite("A guest that lacks memory", .ownThread, .timeLimit(.minutes(2)))
struct ShortageTests {
    private static let size = 2 << 20

    /// The lines of a handler's log that tell of trouble.
    private func troubles(_ handler: Running) -> [String] {
        handler.errorText.split(separator: "\n").map(String.init).filter { line in
            ["waits for", "exited", "restarting", "has no worker", "lost its link", "cannot", "broke"]
                .contains { line.contains($0) }
        }
    }

    @Test("waits for huge pages, says so once, and goes on", arguments: [[], ["--fill", "--peer-timeout", "3s"]])
    func waitsForHugePages(options: [String]) throws {
        try HugePages.with(free: 8) {
            let site = try RestoreSite(serverOf: .standIn)
            defer { site.end() }
            let socket = site.workspace.file("u.sock")
            let command = site.arguments(["--socket", socket] + options)
            // The server answers only once the pool is empty.
            site.endServer()
            let handler = try site.ready(try site.run(Executable.pageferry, command))
            let guest = site.keep(
                try StandIn.restore([8 * Self.size], pageSize: Self.size, with: socket, in: site.workspace.path)
            )
            _ = try handler.errorLine(holding: "has attached")
            var other: MemoryRegion? = try MemoryRegion(name: "other", pageSize: Self.size, pageCount: 8)
            try site.startServer()
            guest.send(.pass)
            let line = try handler.errorLine(holding: "waits for a huge page")
            #expect(line.contains("process \(guest.pid) at unix:\(socket) waits for a huge page: the pool of huge"))
            #expect(line.contains("pages of 2 MiB is empty, all "), "\(line)")
            #expect(line.contains(" are in use or reserved; add some: sysctl vm.nr_hugepages="), "\(line)")
            // Longer than the peer's timeout, which a wait for memory must not look like.
            sleep(5)
            withExtendedLifetime(other) {}
            other = nil
            #expect(try guest.wait(for: "pass") == 1)
            _ = try handler.errorLine(holding: "waits for memory no longer")
            // The server was away at first, which two lines say.
            let troubles = troubles(handler).filter { !$0.contains("cannot connect to") }
            #expect(troubles.count == 2, "\(troubles)")
            #expect(try site.workers(of: handler).count <= 1)
            guest.end()
        }
    }

    @Test("waits for its cgroup, names it once, and goes on", .enabled(if: Self.hasGroups, "needs cgroup v1 as root"))
    func waitsForGroup() throws {
        let group = try Group(mebibytes: 24)
        defer { group.remove() }
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let socket = site.workspace.file("u.sock")
        let handler = try site.attach("--socket", socket, "--give-up", "60s")
        try StandIn.writeMemory([48 << 20], to: site.snapshot.memory + ".large", in: site.workspace.path)
        site.endServer()
        try site.startServer(site.snapshot.memory + ".large")
        let move = "echo $$ > \(group.path)/cgroup.procs; exec \"$0\" \"$@\""
        let guest = site.keep(
            try StandIn.restore([48 << 20], with: socket, in: site.workspace.path, by: ["/bin/sh", "-c", move])
        )
        guest.send(.pass)
        let line = try handler.errorLine(holding: "waits for memory")
        let reason = "the cgroup \(group.path) is at its limit of 24 MiB; raise memory.limit_in_bytes"
        #expect(line.contains(reason), "\(line)")
        sleep(3)
        try group.limit(mebibytes: 128)
        #expect(try guest.wait(for: "pass") == 1)
        _ = try handler.errorLine(holding: "waits for memory no longer")
        #expect(troubles(handler).count == 2, "\(troubles(handler))")
    }

    @Test("is refused at its hand-off if the pool lacks its huge pages")
    func refused() throws {
        try HugePages.with(free: 4) {
            let site = try RestoreSite(serverOf: .standIn)
            defer { site.end() }
            let socket = site.workspace.file("u.sock")
            let handler = try site.attach("--socket", socket)
            let guest = try restore([8 * Self.size], at: socket, site)
            let line = try handler.errorLine(holding: "refused process \(guest.pid)")
            #expect(line.contains("its memory lacks 8 huge pages of 2 MiB, and 4 are free, of which"), "\(line)")
            #expect(line.contains("the other guests may take 0; add some: sysctl vm.nr_hugepages="), "\(line)")
            #expect(line.contains("and restore the guest again; it was killed"), "\(line)")
            #expect(try guest.waitForEnd() == SIGKILL)
        }
    }

    @Test("is refused if the pool has only those huge pages that other guests still lack, and served when they end")
    func others() throws {
        try HugePages.with(free: 12) {
            let site = try RestoreSite(serverOf: .standIn)
            defer { site.end() }
            let socket = site.workspace.file("u.sock")
            let handler = try site.attach("--socket", socket)
            let first = try restore([8 * Self.size], at: socket, site)
            _ = try first.perform(.workingSet)
            let second = try restore([8 * Self.size], at: socket, site)
            let line = try handler.errorLine(holding: "refused process \(second.pid)")
            #expect(line.contains("its memory lacks 8 huge pages of 2 MiB, and "), "\(line)")
            #expect(try second.waitForEnd() == SIGKILL)
            // What the first guest has and lacks is the same number, however much it has.
            let third = try restore([4 * Self.size], at: socket, site)
            #expect(try third.perform(.workingSet) == 1)
            #expect(try first.perform(.pass) == 1)
            first.end()
            _ = try handler.errorLine(holding: "stopped serving process \(first.pid)")
            third.end()
            _ = try handler.errorLine(holding: "stopped serving process \(third.pid)")
            try waitForWorkers(of: handler, site)
            let last = try restore([8 * Self.size], at: socket, site)
            #expect(try last.perform(.pass) == 1)
            last.end()
        }
    }

    @Test("is served from the huge pages that are reserved for it")
    func reserved() throws {
        try HugePages.with(free: 8) {
            let site = try RestoreSite(serverOf: .standIn)
            defer { site.end() }
            let socket = site.workspace.file("u.sock")
            _ = try site.attach("--socket", socket)
            let guest = try site.python("odd_guest.py", socket, site.snapshot.memory, "reserved")
            _ = try guest.line(holding: "0 pages are wrong")
            guest.end()
        }
    }

    private func restore(_ regions: [Int], at socket: String, _ site: RestoreSite) throws -> GuestProcess {
        site.keep(try StandIn.restore(regions, pageSize: Self.size, with: socket, in: site.workspace.path))
    }

    private func waitForWorkers(of handler: Running, _ site: RestoreSite) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !site.workers(of: handler).isEmpty {
            guard Date() < deadline else { throw TestFailure("a worker still runs") }
            usleep(5000)
        }
    }

    // MARK: Groups

    private static let groups = "/sys/fs/cgroup/memory"
    private static let hasGroups =
        geteuid() == 0 && FileManager.default.isWritableFile(atPath: "\(groups)/memory.oom_control")

    /// A memory group in which nothing is killed for want of memory.
    private struct Group {
        let path = "\(ShortageTests.groups)/pageferry-\(UInt32.random(in: 0...UInt32.max))"

        init(mebibytes: Int) throws {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
            try limit(mebibytes: mebibytes)
            try write("1", "memory.oom_control")
        }

        func limit(mebibytes: Int) throws { try write("\(mebibytes << 20)", "memory.limit_in_bytes") }

        private func write(_ text: String, _ name: String) throws {
            let file = try FileHandle(forWritingTo: URL(fileURLWithPath: "\(path)/\(name)"))
            try file.write(contentsOf: Data(text.utf8))
            try file.close()
        }

        func remove() {
            let deadline = Date(timeIntervalSinceNow: 10)
            // The group of a process that was killed is in use for a moment.
            while rmdir(path) != 0, Date() < deadline { usleep(10_000) }
        }
    }
}

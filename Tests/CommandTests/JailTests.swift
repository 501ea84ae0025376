import FirecrackerRig
import Foundation
import OwnThread
import Testing

/// Guests whose process runs as another user in a root folder and a PID namespace of its own.
@Suite("A jailed guest", .ownThread, .timeLimit(.minutes(2)), .enabled(if: Jail.isPossible, "needs root and unshare"))
struct JailTests {
    private static let owner = ["--socket-owner", "\(Jail.user):\(Jail.user)"]

    /// The process of a guest that was started through another program, as the handler's log names it.
    private func process(_ handler: Running) throws -> Int32 {
        let line = try handler.errorLine(holding: " has attached with ")
        guard let pid = line.split(separator: " ").compactMap({ Int32($0) }).first else { throw TestFailure(line) }
        return pid
    }

    @Test("reaches a socket in its jail, is served, and can be stopped and killed")
    func standIn() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let jail = try Jail(String(repeating: "a", count: 64), in: site.workspace.path)
        #expect(jail.socket.utf8.count > 107)
        let handler = try site.attach("--socket", jail.socket, Self.owner[0], Self.owner[1], "--give-up", "1s")
        let guest = site.keep(try jail.restore([RestoreSite.memoryBytes]))
        let process = try process(handler)
        defer { kill(process, SIGKILL) }
        let status = try ProcessFiles.text("/proc/\(process)/status")
        #expect(status.contains("Uid:\t\(Jail.user)\t") && status.contains(/NSpid:\t\d+\t1\n/), "\(status)")
        #expect(try guest.perform(.pass) == 1)
        _ = try handler.errorLine(holding: "process \(process) at unix:\(jail.socket) has all of its pages")
    }

    @Test(
        "of Firecracker's own jailer is served, and killed when its pages are lost",
        .enabled(if: (try? Jail.jailer.get()) != nil, "needs Firecracker and its jailer"),
        arguments: [[], ["--new-pid-ns"]]
    )
    func jailer(options: [String]) throws {
        let site = try RestoreSite(serverOf: .firecracker)
        defer { site.end() }
        let jail = try Jail("vm1", in: site.workspace.path)
        let handler = try site.attach(
            "--socket",
            jail.socket,
            Self.owner[0],
            Self.owner[1],
            "--give-up",
            "1s",
            "--on-lost",
            "kill"
        )
        let guest = site.keep(try jail.restore(site.snapshot, "vm1", in: site.workspace.path, options))
        let process = try process(handler)
        defer { kill(process, SIGKILL) }
        let status = try ProcessFiles.text("/proc/\(process)/status")
        #expect(status.contains("Uid:\t\(Jail.user)\t"), "\(status)")
        #expect(status.contains(/NSpid:\t\d+\t1\n/) == !options.isEmpty, "\(status)")
        #expect(try guest.perform(.workingSet) == 1)
        site.endServer()
        guest.send(.pass)
        _ = try handler.errorLine(holding: "process \(process) at unix:\(jail.socket) cannot get the page")
        _ = try handler.errorLine(holding: "it is killed")
        // A process that was killed and not reaped yet is a zombie.
        try wait(for: "State:\tZ", of: process)
    }

    /// Waits until the status of a process has a text, or the process is gone.
    private func wait(for text: String, of process: Int32) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while let status = try? ProcessFiles.text("/proc/\(process)/status"), !status.contains(text) {
            guard Date() < deadline else { throw TestFailure("process \(process) is not as '\(text)' says: \(status)") }
            sched_yield()
        }
    }

    @Test("whose hand-off is refused is killed")
    func refused() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let jail = try Jail("refused", in: site.workspace.path)
        let handler = try site.attach("--socket", jail.socket, Self.owner[0], Self.owner[1], "--allow-uid", "0")
        let guest = site.keep(try jail.restore([RestoreSite.memoryBytes]))
        let line = try handler.errorLine(holding: "user \(Jail.user) is none of those that --allow-uid names")
        #expect(line.contains("it was killed"), "\(line)")
        // unshare(1) ends with its child.
        _ = try guest.waitForEnd()
    }

    @Test("is held while the server is gone, and continues when the server is back")
    func held() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let jail = try Jail("lost", in: site.workspace.path)
        let handler = try site.attach(
            "--socket",
            jail.socket,
            Self.owner[0],
            Self.owner[1],
            "--give-up",
            "1s",
            "--on-lost",
            "hold"
        )
        let guest = site.keep(try jail.restore([RestoreSite.memoryBytes]))
        let process = try process(handler)
        defer { kill(process, SIGKILL) }
        _ = try guest.perform(.workingSet)
        site.endServer()
        guest.send(.pass)
        _ = try handler.errorLine(holding: "it waits until")
        try site.startServer()
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
    }

    @Test("cannot lead the handler out of its jail by what it has put at the path")
    func hostile() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let outside = site.workspace.file("outside")
        try FileManager.default.createDirectory(atPath: outside, withIntermediateDirectories: false)
        let files = FileManager.default
        let obstacles: [(reason: String, make: (Jail) throws -> Void)] = [
            (
                "is a link that another user can change",
                { jail in
                    try files.removeItem(atPath: "\(jail.root)/run")
                    try files.createSymbolicLink(atPath: "\(jail.root)/run", withDestinationPath: outside)
                }
            ),
            (
                "a symbolic link is there",
                { jail in try files.createSymbolicLink(atPath: jail.socket, withDestinationPath: "\(outside)/s") }
            ),
            ("a FIFO is there", { jail in _ = mkfifo(jail.socket, 0o666) }),
            ("a folder is there", { jail in _ = mkdir(jail.socket, 0o777) }),
            ("a file that is no socket is there", { jail in _ = close(open(jail.socket, O_CREAT, 0o666)) }),
        ]
        for (index, obstacle) in obstacles.enumerated() {
            let jail = try Jail("hostile\(index)", in: site.workspace.path)
            try obstacle.make(jail)
            let handler = try Executable.run(
                Executable.pageferry,
                site.arguments(["--socket", jail.socket] + Self.owner)
            )
            #expect(handler.status == 1 && handler.output.isEmpty, "\(handler)")
            #expect(handler.errors.contains(obstacle.reason), "\(handler)")
            var status = stat()
            #expect(lstat(index == 0 ? "\(jail.root)/run" : jail.socket, &status) == 0)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: outside).isEmpty)
    }

    @Test("outside the PID namespace of the handler is served, and neither stopped nor killed")
    func outside() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let socket = site.workspace.file("u.sock")
        let handler = try site.attach(
            "--socket",
            socket,
            "--give-up",
            "1s",
            "--on-lost",
            "kill",
            "--http",
            "127.0.0.1:0",
            by: ["/usr/bin/unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
        )
        let guests = try (0..<2).map { _ in try site.restore(at: socket) }
        for guest in guests { _ = try guest.perform(.workingSet) }
        let name = "a process of another PID namespace at unix:\(socket)"
        _ = try handler.errorLine(holding: "\(name) has attached", number: 2)
        _ = try handler.errorLine(holding: "such guests are served, but never killed")
        // Neither has a process id here, and each is shown all the same.
        let page = try WatchTests.page(of: handler)
        try WatchTests.wait("both guests") {
            let shown = try WatchTests.json("/api/state", at: page)["guests"] as? [[String: Any]] ?? []
            return shown.compactMap { $0["id"] as? String } == ["outside-1", "outside-2"]
        }
        let samples = try WatchTests.metrics(at: page).keys.filter { $0.hasPrefix("pageferry_guest_memory_pages{") }
        #expect(samples.count == 2 && samples.allSatisfy { $0.contains(#"pid="0""#) }, "\(samples)")
        site.endServer()
        guests[0].send(.pass)
        _ = try handler.errorLine(holding: "\(name) cannot get ")
        try site.startServer()
        #expect(try guests[0].wait(for: "pass", seconds: 60) == 1)
        #expect(try guests[1].perform(.pass) == 1)
        #expect(handler.errorText.split(separator: "\n").count { $0.contains("such guests are served") } == 1)
        // The end of such a process is noticed.
        guests[1].end()
        _ = try handler.errorLine(holding: "stopped serving \(name)")
    }

    @Test("outside the PID namespace of the handler is refused as any other, and left alone, with the reason")
    func refusedOutside() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let socket = site.workspace.file("u.sock")
        let handler = try site.attach(
            "--socket",
            socket,
            "--max-guests",
            "1",
            by: ["/usr/bin/unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
        )
        let first = try site.restore(at: socket)
        _ = try first.perform(.workingSet)
        _ = try site.restore(at: socket)
        let line = try handler.errorLine(holding: "refused a process of another PID namespace at unix:\(socket)")
        #expect(line.contains("as many as --max-guests allows"), "\(line)")
        #expect(line.contains("cannot be killed from here: cannot kill a process of another PID namespace"), "\(line)")
        #expect(try first.perform(.pass) == 1)
    }
}

import FirecrackerRig
import Foundation
import OwnThread
import Testing

/// The guests that `attach` serves at a time.
@Suite("A guest beside others", .ownThread, .timeLimit(.minutes(2)))
struct GuestLimitTests {
    private static let isRoot = geteuid() == 0

    /// Starts a stand-in as another user.
    private func restore(as user: Int, at socket: String, _ site: RestoreSite) throws -> GuestProcess {
        // The capability is the one to open a userfaultfd.
        let identity = [
            "--reuid=\(user)", "--regid=\(user)", "--clear-groups", "--inh-caps=+sys_ptrace",
            "--ambient-caps=+sys_ptrace",
        ]
        return site.keep(
            try StandIn.restore(
                [RestoreSite.memoryBytes],
                with: socket,
                in: site.workspace.path,
                by: ["/usr/bin/setpriv"] + identity
            )
        )
    }

    /// A handler at a socket that every user can open, in a folder that every user can enter.
    private func attach(_ site: RestoreSite, _ options: String...) throws -> (handler: Running, socket: String) {
        #expect(chmod(site.workspace.path, 0o755) == 0)
        let socket = site.workspace.file("u.sock")
        let command = site.arguments(["--socket", socket, "--socket-mode", "0666"] + options)
        return (try site.ready(try site.run(Executable.pageferry, command)), socket)
    }

    @Test("that hands the same userfaultfd over again is served once, and keeps running", arguments: ["same", "child"])
    func same(kind: String) throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site)
        let guest = try site.python("many_hand_offs.py", socket, "175", kind)
        _ = try guest.line(holding: "read again", seconds: 60)
        let line = try handler.errorLine(holding: "refused process ")
        #expect(
            line.contains(
                "its userfaultfd is that of process \(guest.pid) at unix:\(socket), which is served already; hand over "
                    + "each userfaultfd once"
            ),
            "\(line)"
        )
        #expect(try site.workers(of: handler).count == 1)
        let output = guest.outputText.split(separator: "\n")
        // A refused process of these is not killed: its memory is served.
        #expect(output.count { $0 == (kind == "same" ? "hung up" : "child 0") } == 174, "\(output)")
    }

    @Test("of the same process is refused for as long as the first is served", arguments: ["kill", "leave"])
    func other(policy: String) throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site, "--on-refused", policy)
        let guest = try site.python("many_hand_offs.py", socket, "2", "other")
        let line = try handler.errorLine(holding: "refused process \(guest.pid) at unix:\(socket): another userfaultfd")
        #expect(
            line.contains("of the same process, process \(guest.pid) at unix:\(socket), is still served"),
            "\(line)"
        )
        #expect(line.contains("hand over one userfaultfd per process"), "\(line)")
        if policy == "kill" {
            #expect(line.hasSuffix("it was killed, since it would have waited for its memory for ever"), "\(line)")
            #expect(try guest.finish().status == SIGKILL)
        } else {
            _ = try guest.line(holding: "read again")
            // The other process keeps the memory of the refused hand-off.
            #expect(try site.workers(of: handler).count == 2)
        }
        // The place is free once the guest has ended.
        guest.end()
        _ = try handler.errorLine(holding: "stopped serving")
        let next = try site.restore(at: socket)
        #expect(try next.perform(.pass) == 1)
    }

    @Test("of the same process is served as soon as the first has all of its pages")
    func next() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (_, socket) = try attach(site)
        let guest = try site.python("many_hand_offs.py", socket, "20", "next")
        _ = try guest.line(holding: "read again")
        #expect(guest.outputText.split(separator: "\n").count { $0.hasPrefix("next ") } == 19)
    }

    @Test("is refused above --max-guests, and served when one has ended")
    func maxGuests() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site, "--max-guests", "2")
        let guests = try (0..<2).map { _ in try site.restore(at: socket) }
        for guest in guests { _ = try guest.perform(.workingSet) }
        let third = try site.restore(at: socket)
        let line = try handler.errorLine(holding: "refused process \(third.pid) at unix:\(socket): 2 guests are served")
        #expect(
            line.contains("as many as --max-guests allows; raise --max-guests, or end guests; it was killed"),
            "\(line)"
        )
        #expect(try third.waitForEnd() == SIGKILL)
        for guest in guests { #expect(try guest.perform(.pass) == 1) }
        guests[0].end()
        _ = try handler.errorLine(holding: "stopped serving")
        // The place is free once the worker has exited, which the line precedes.
        try waitForWorkers(1, of: handler, site)
        #expect(try site.restore(at: socket).perform(.pass) == 1)
    }

    private func waitForWorkers(_ count: Int, of handler: Running, _ site: RestoreSite) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try site.workers(of: handler).count > count {
            guard Date() < deadline else { throw TestFailure("more than \(count) workers run") }
            sched_yield()
        }
    }

    @Test(
        "of one user is refused above --max-guests-per-uid, and of another is served",
        .enabled(if: isRoot, "needs root")
    )
    func perUser() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site, "--max-guests-per-uid", "1")
        let first = try restore(as: 1234, at: socket, site)
        _ = try first.perform(.workingSet)
        let second = try restore(as: 1234, at: socket, site)
        let line = try handler.errorLine(
            holding: "refused process \(second.pid) at unix:\(socket): user 1234 has 1 guests"
        )
        #expect(line.contains("as many as --max-guests-per-uid allows; raise --max-guests-per-uid"), "\(line)")
        #expect(try second.waitForEnd() == SIGKILL)
        #expect(try restore(as: 1235, at: socket, site).perform(.pass) == 1)
        #expect(try first.perform(.pass) == 1)
    }

    @Test("is refused if --allow-uid names other users", .enabled(if: isRoot, "needs root"))
    func allowedUsers() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site, "--allow-uid", "1234", "--allow-uid", "1235")
        let stranger = try restore(as: 1236, at: socket, site)
        let line = try handler.errorLine(
            holding: "refused process \(stranger.pid) at unix:\(socket): user 1236 is none of"
        )
        #expect(line.contains("those that --allow-uid names; add --allow-uid 1236"), "\(line)")
        #expect(try stranger.waitForEnd() == SIGKILL)
        for user in [1234, 1235] { #expect(try restore(as: user, at: socket, site).perform(.pass) == 1) }
    }

    @Test("is served while a process sends many hand-offs that are not whole")
    func partialHandOffs() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site, "--on-refused", "leave")
        let sender = try site.run("/usr/bin/python3", ["-c", Self.partialSender, socket])
        let line = try handler.errorLine(holding: "refused process \(sender.pid) at unix:\(socket): 8 hand-offs")
        #expect(
            line.contains("of the same process are not whole yet; hand over one userfaultfd per process"),
            "\(line)"
        )
        let guest = try site.restore(at: socket)
        #expect(try guest.perform(.pass) == 1)
    }

    /// Begins 20 hand-offs, and finishes none of them.
    private static let partialSender = """
        import array, signal, socket, sys
        sockets = []
        for _ in range(20):
            s = socket.socket(socket.AF_UNIX)
            s.connect(sys.argv[1])
            s.sendmsg([b'['], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))])
            sockets.append(s)
        signal.pause()
        """

    // MARK: Descriptors

    private func limit(_ handler: Running, to count: Int) throws {
        let set = try Executable.run("/usr/bin/prlimit", ["--pid", "\(handler.pid)", "--nofile=\(count):1024"])
        #expect(set.status == 0, "\(set)")
    }

    @Test("waits in its socket while too few descriptors are free")
    func waitsForDescriptors() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site)
        try limit(handler, to: try ProcessFiles.descriptorCount(of: handler.pid) + 1)
        let guest = try site.restore(at: socket)
        let line = try handler.errorLine(holding: "guests wait at unix:\(socket)")
        #expect(line.contains("cannot take a guest at unix:\(socket) yet: Too many open files"), "\(line)")
        #expect(line.contains("descriptors are open; raise the hard limit of `ulimit -n`"), "\(line)")
        #expect(!handler.errorText.contains("refused"))
        try limit(handler, to: 1024)
        #expect(try guest.perform(.pass) == 1)
        #expect(!handler.errorText.contains("refused"))
    }

    @Test("whose userfaultfd is lost for want of descriptors is refused with that reason")
    func lostDescriptors() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (handler, socket) = try attach(site)
        // Enough for a hand-off to be received, and too few for the descriptors of this one.
        try limit(handler, to: try ProcessFiles.descriptorCount(of: handler.pid) + 8)
        let sender = try Executable.run("/usr/bin/python3", ["-c", Self.sender, socket])
        #expect(sender.status == SIGKILL, "\(sender)")
        let line = try handler.errorLine(holding: "refused process ")
        #expect(
            line.contains("the userfaultfd was lost, since this process or host has too many open files"),
            "\(line)"
        )
        #expect(line.contains("raise `ulimit -n`, and restore the guest again; it was killed"), "\(line)")
    }

    /// Hands over 16 descriptors.
    private static let sender = """
        import array, os, socket, sys
        s = socket.socket(socket.AF_UNIX)
        s.connect(sys.argv[1])
        message = b'[{"base_host_virt_addr":4194304,"size":8192,"offset":0,"page_size":4096}]'
        s.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 16))])
        s.recv(1)
        """

    @Test("of a process with a low limit has all the descriptors that the process may have")
    func raisedLimit() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (socket, control) = (site.workspace.file("u.sock"), site.workspace.file("c.sock"))
        let snapshot = site.workspace.file("memory")
        let commands = [
            site.arguments(["--socket", socket]), ["serve", "--snapshot", snapshot, "--listen", "127.0.0.1:0"],
            ["source", "--qmp", control, "--memory", "1MiB"],
        ]
        for command in commands {
            let words = ([Executable.pageferry] + command).joined(separator: " ")
            let running = try site.ready(try site.run("/bin/sh", ["-c", "ulimit -Sn 256; exec \(words)"]))
            let limits = try ProcessFiles.text("/proc/\(running.pid)/limits")
            let line = try #require(limits.split(separator: "\n").first { $0.hasPrefix("Max open files") })
            let numbers = line.split(separator: " ").compactMap { Int($0) }
            #expect(numbers.count == 2 && numbers[0] == numbers[1] && numbers[0] > 256, "\(line)")
        }
    }
}

import FirecrackerRig
import Foundation
import HugePages
import LinuxSystem
import OwnThread
import Testing

/// Guests whose snapshot is on another host: Firecracker where it can be had, and what stands in for it.
@Suite("A restored guest", .ownThread, .timeLimit(.minutes(2)))
struct RestoreTests {
    @Test("finds every page right across two hosts", arguments: GuestKind.available)
    func twoHosts(kind: GuestKind) throws {
        let site = try RestoreSite(kind, between: TwoHosts(rate: "1gbit"))
        defer { site.end() }
        let guest = try site.restore()
        guest.send(.dispersed)
        #expect(try guest.perform(.workingSet) == 1)
        #expect(try guest.perform(.pass) == 1)
        #expect(try guest.perform(.pass) == 2)
    }

    @Test(
        "waits while the link is away, gone or silent, and goes on when it is back",
        arguments: GuestKind.available,
        [true, false]
    )
    func linkCut(kind: GuestKind, isGone: Bool) throws {
        let hosts = try TwoHosts(rate: "200mbit")
        let site = try RestoreSite(kind, between: hosts, memoryMiB: 64, "--peer-timeout", "1s")
        defer { site.end() }
        let guest = try site.restore()
        guest.send(.dispersed)
        _ = try guest.perform(.workingSet)
        guest.send(.pass)
        if isGone { try hosts.cutLink() } else { try hosts.loseWhat(hosts.destination) }
        _ = try site.handler.errorLine(holding: "has no pages from")
        if isGone { try hosts.mendLink() } else { try hosts.loseNothing(hosts.destination) }
        _ = try site.handler.errorLine(holding: "can have pages again")
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
        #expect(try guest.perform(.pass) == 2)
    }

    @Test("is one of ten of the same snapshot at the same time", arguments: GuestKind.available)
    func clones(kind: GuestKind) throws {
        let site = try RestoreSite(kind)
        defer { site.end() }
        let guests = try (0..<10).map { _ in try site.restore() }
        for guest in guests { guest.send(.pass) }
        for guest in guests { #expect(try guest.wait(for: "pass") == 1) }
        for guest in guests { #expect(try guest.perform(.pass) == 2) }
    }

    @Test("only sees a slow fault when the worker that serves it is killed", arguments: GuestKind.available)
    func workerKilled(kind: GuestKind) throws {
        let site = try RestoreSite(kind, memoryMiB: 64)
        defer { site.end() }
        let guest = try site.restore()
        guest.send(.dispersed)
        guest.send(.pass)
        for number in 1...5 {
            let worker = try site.worker(number)
            // At once, and while it serves.
            if number > 1 { usleep(UInt32(number) * 20_000) }
            kill(worker, SIGKILL)
            _ = try site.handler.errorLine(holding: "worker \(worker) of process \(guest.pid)")
        }
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
        #expect(try guest.perform(.pass) == 2)
    }

    @Test("gets no page back that its balloon took, whoever serves it then", arguments: GuestKind.available)
    func balloon(kind: GuestKind) throws {
        let site = try RestoreSite(kind)
        defer { site.end() }
        let guest = try site.restore()
        #expect(try guest.perform(.inflate) == 256)
        kill(try site.worker(1), SIGKILL)
        #expect(try guest.perform(.pass) == 1)
        #expect(try guest.perform(.inflate) == 512)
        #expect(try guest.perform(.pass) == 2)
    }

    @Test("is served while pages are dropped beside faults, and in regions apart")
    func dropsBesideFaults() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let guest = try StandIn.restore([6 << 20, 10 << 20], with: site.socket, in: site.workspace.path)
        defer { guest.end() }
        for _ in 0..<4 { try guest.perform(.inflateBesideFaults) }
        #expect(try guest.perform(.pass) == 1)
    }

    @Test("has a worker whose command line says nothing of its memory", arguments: GuestKind.available)
    func commandLine(kind: GuestKind) throws {
        let site = try RestoreSite(kind)
        defer { site.end() }
        let guest = try site.restore()
        defer { guest.end() }
        let worker = try site.worker(1)
        let words = (ProcessFile.text("/proc/\(worker)/cmdline") ?? "").split(separator: "\0")
        #expect(words.dropFirst() == ["attach-worker", "--log-level", "info"])
    }

    @Test("of huge pages has them, also when its worker is killed")
    func hugePages() throws {
        try HugePages.with(free: 8) {
            let site = try RestoreSite(.standIn)
            defer { site.end() }
            let guest = try StandIn.restore(
                [4 << 20, 12 << 20],
                pageSize: 2 << 20,
                with: site.socket,
                in: site.workspace.path
            )
            defer { guest.end() }
            #expect(try guest.perform(.inflate) == 512)
            kill(try site.worker(1), SIGKILL)
            #expect(try guest.perform(.pass) == 1)
            guest.end()
        }
    }

    @Test("of huge pages is lost when the pool has none left, also for a page that it had dropped", arguments: [4, 8])
    func noHugePages(free: Int) throws {
        try HugePages.with(free: free) {
            let site = try RestoreSite(.standIn, "--give-up", "1s", "--on-lost", "kill")
            defer { site.end() }
            let guest = try StandIn.restore([16 << 20], pageSize: 2 << 20, with: site.socket, in: site.workspace.path)
            defer { guest.end() }
            var other: MemoryRegion?
            if free == 8 {
                // The page that comes next in the pass.
                _ = try guest.perform(.workingSet)
                #expect(try guest.perform(.inflate) == 512)
                let count = HugePagePool.available
                other = try MemoryRegion(name: "other", pageSize: HugePagePool.pageSize, pageCount: count)
            }
            guest.send(.pass)
            let line = try site.handler.errorLine(holding: "no huge page is left")
            #expect(line.contains("vm.nr_hugepages"), "\(line)")
            _ = try site.handler.errorLine(holding: "it is killed")
            #expect(try guest.waitForEnd() == SIGKILL)
            withExtendedLifetime(other) {}
        }
    }

    @Test("waits while the server is away, and goes on when it is back", arguments: GuestKind.available)
    func serverReturns(kind: GuestKind) throws {
        let site = try RestoreSite(kind, memoryMiB: 64)
        defer { site.end() }
        let guest = try site.restore()
        guest.send(.dispersed)
        _ = try guest.perform(.workingSet)
        site.endServer()
        guest.send(.pass)
        _ = try site.handler.errorLine(holding: "has no pages from")
        try site.startServer()
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
        _ = try site.handler.errorLine(holding: "can have pages again")
    }

    @Test("whose record cannot be written any more is told of once")
    func unrecorded() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let folder = site.workspace.file("records")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        let handler = try site.startHandler(["--record", "\(folder)/set", "--window", "2s"])
        defer { handler.end() }
        try FileManager.default.removeItem(atPath: folder)
        let guest = try site.restore(at: handler.socket)
        _ = try guest.perform(.workingSet)
        _ = try handler.running.errorLine(holding: "its working set is not recorded")
        guest.end()
        _ = try handler.running.errorLine(holding: "is served no longer")
        let lines = handler.running.errorText.split(separator: "\n")
        #expect(lines.count { $0.contains("is not recorded") } == 1, "\(lines)")
    }

    @Test("has what it touched before, recorded at its first restore", arguments: GuestKind.available)
    func workingSet(kind: GuestKind) throws {
        let site = try RestoreSite(kind)
        defer { site.end() }
        let record = site.workspace.file("set")
        func restore(_ options: String...) throws -> (demand: Int, ahead: Int) {
            let handler = try site.startHandler(options)
            defer { handler.end() }
            let guest = try site.restore(at: handler.socket)
            // How long it takes is the machine's; what comes is the record's.
            if options.contains("--prefetch") { _ = try handler.running.errorLine(holding: "has its working set") }
            guest.send(.dispersed)
            _ = try guest.perform(.workingSet)
            guest.end()
            let line = try handler.running.errorLine(holding: "is served no longer")
            let numbers = line.split(separator: " ").enumerated().reduce(into: [String: Int]()) { numbers, word in
                let words = line.split(separator: " ")
                guard word.offset > 0, let number = Int(words[word.offset - 1]) else { return }
                numbers[String(word.element.filter(\.isLetter))] = number
            }
            return (numbers["on"] ?? -1, numbers["ahead"] ?? -1)
        }
        let first = try restore("--record", record, "--window", "60s")
        #expect(first.demand > 100)
        let shown = try Printed(Executable.pageferry("workingset", record, "--json").output)
        #expect("\(shown)".contains("\(first.demand)"), "\(shown)")
        let second = try restore("--prefetch", record)
        #expect(second.demand * 10 < first.demand, "\(first) without, \(second) with it")
        #expect(second.ahead + second.demand >= first.demand)
    }

    @Test("is killed when the server is gone for good, and the line says which page", arguments: GuestKind.available)
    func killed(kind: GuestKind) throws {
        let site = try RestoreSite(kind, "--give-up", "1s", "--on-lost", "kill")
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        site.endServer()
        guest.send(.pass)
        let line = try site.handler.errorLine(holding: "it is killed")
        #expect(line.contains("process \(guest.pid) at unix:\(site.socket) cannot have the page at byte "), "\(line)")
        #expect(line.contains("has been gone for 1.0 s"), "\(line)")
        #expect(try guest.waitForEnd() == SIGKILL)
    }

    @Test("is held while the server is gone, and goes on afterwards", arguments: GuestKind.available)
    func held(kind: GuestKind) throws {
        let site = try RestoreSite(kind, "--give-up", "1s", "--on-lost", "hold")
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        site.endServer()
        guest.send(.pass)
        _ = try site.handler.errorLine(holding: "it is stopped")
        try waitUntilStopped(guest.pid)
        // The next worker knows that it is held.
        kill(try site.worker(1), SIGKILL)
        _ = try site.worker(2)
        try site.startServer()
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
    }

    /// Waits until a process is stopped. It is not told by waitid(2) before the last thread has stopped, and a vCPU that
    /// waits for its page does that only afterwards.
    private func waitUntilStopped(_ pid: Int32) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while Date() < deadline {
            let line = try String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)
            guard let end = line.lastIndex(of: ")") else { throw TestFailure(line) }
            if line[line.index(end, offsetBy: 2)] == "T" { return }
            sched_yield()
        }
        throw TestFailure("process \(pid) is not stopped")
    }

    @Test("is held while the server serves another file, and goes on with its own", arguments: GuestKind.available)
    func otherFile(kind: GuestKind) throws {
        let site = try RestoreSite(kind, "--give-up", "60s", "--on-lost", "hold")
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        site.endServer()
        guest.send(.pass)
        let other = site.workspace.file("other")
        try FileManager.default.copyItem(atPath: site.snapshot.memory, toPath: other)
        try FileManager.default.setAttributes([.modificationDate: Date(timeIntervalSince1970: 1)], ofItemAtPath: other)
        try site.startServer(other)
        let line = try site.handler.errorLine(holding: "it is stopped")
        #expect(line.contains("serves another file than before; it is stopped until 127.0.0.1:"), "\(line)")
        #expect(line.hasSuffix(" serves the file that it was restored from"), "\(line)")
        try waitUntilStopped(guest.pid)
        site.endServer()
        try site.startServer()
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
    }

    @Test("is lost when a server takes it and does not answer")
    func noAnswer() throws {
        let server = try SilentServer()
        defer { server.end() }
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let handler = try site.startHandler(["--give-up", "1s", "--on-lost", "kill"], from: server.address)
        defer { handler.end() }
        let guest = try site.restore(at: handler.socket)
        guest.send(.pass)
        let line = try handler.running.errorLine(holding: "it is killed")
        #expect(line.contains("has not answered for 1.0 s"), "\(line)")
        #expect(try guest.waitForEnd() == SIGKILL)
    }

    @Test("is served on where nobody reads the handler's log")
    func lostLog() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let socket = site.workspace.file("quiet.sock")
        let command = "exec \(Executable.pageferry) attach --socket \(socket) --from \(site.address) 2>/dev/full"
        let handler = try Running("/bin/sh", ["-c", command])
        defer { handler.end() }
        _ = try handler.line(holding: "ready")
        let stranger = try Executable.run("/usr/bin/python3", ["-c", Self.sender, socket, "[]", "0"])
        #expect(stranger.status == 0, "\(stranger)")
        let guest = try site.restore(at: socket)
        _ = try guest.perform(.workingSet)
        site.endServer()
        guest.send(.pass)
        try site.startServer()
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
    }

    @Test("is followed on when the handler was told to end, which does so behind it")
    func toldToEnd() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        kill(site.handler.pid, SIGTERM)
        _ = try site.handler.errorLine(holding: "no more guests are taken")
        kill(try site.worker(1), SIGKILL)
        _ = try site.worker(2)
        #expect(try guest.perform(.pass) == 1)
        guest.end()
        #expect(try site.handler.finish().status == 0)
    }

    @Test("has a worker again as soon as one can be started")
    func shortage() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        func limit(_ descriptors: Int) throws {
            let set = try Executable.run(
                "/usr/bin/prlimit",
                ["--pid", "\(site.handler.pid)", "--nofile=\(descriptors):1024"]
            )
            #expect(set.status == 0, "\(set)")
        }
        try limit(4)
        kill(try site.worker(1), SIGKILL)
        _ = try site.handler.errorLine(holding: "process \(guest.pid) at unix:\(site.socket) has no worker")
        try limit(1024)
        #expect(try guest.perform(.pass) == 1)
    }

    @Test("is not served by a snapshot that is shorter than its memory")
    func shortSnapshot() throws {
        let site = try RestoreSite(.standIn, "--on-lost", "kill")
        defer { site.end() }
        let guest = try StandIn.restore([32 << 20], with: site.socket, in: site.workspace.path)
        defer { guest.end() }
        let line = try site.handler.errorLine(holding: "it is killed")
        #expect(line.contains("has 16777216 bytes, and the guest's regions end at 33554432"), "\(line)")
        #expect(try guest.waitForEnd() == SIGKILL)
    }

    @Test("goes on beside those whose hand-off is refused")
    func badHandOffs() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let guest = try site.restore()
        let one = #"{"base_host_virt_addr":4194304,"size":8192,"offset":0,"page_size":4096}"#
        let cases: [(message: String, descriptors: Int, reason: String)] = [
            ("[\(one)]", 0, "0 descriptors"), ("[\(one)]", 3, "3 descriptors"), ("[\(one)]", 1, "no userfaultfd"),
            ("[\(one.dropLast(9))", 1, "is not the JSON that Firecracker sends"), ("[]", 1, "has 0 regions"),
            ("[\(one),\(one)]", 1, "overlap at address 4194304"),
            (#"[{"base_host_virt_addr":4096,"size":8192,"offset":0,"page_size":3}]"#, 1, "pages of 3 bytes"),
            (#"[{"base_host_virt_addr":18446744073709547520,"size":8192,"offset":0}]"#, 1, "is no range of pages"),
        ]
        for (message, descriptors, reason) in cases {
            let sender = try Executable.run(
                "/usr/bin/python3",
                ["-c", Self.sender, site.socket, message, "\(descriptors)"]
            )
            #expect(sender.status == 0, "\(sender)")
            let pid = sender.output.trimmingCharacters(in: .newlines)
            let line = try site.handler.errorLine(holding: "refused process \(pid) at unix:\(site.socket)")
            #expect(line.contains(reason), "\(line)")
        }
        #expect(try guest.perform(.pass) == 1)
    }

    /// Sends a message with copies of its standard input, and waits until the other end hangs up.
    private static let sender = """
        import array, os, socket, sys
        s = socket.socket(socket.AF_UNIX)
        s.connect(sys.argv[1])
        fds = array.array('i', [0] * int(sys.argv[3]))
        s.sendmsg([sys.argv[2].encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else [])
        print(os.getpid(), flush=True)
        s.recv(1)
        """
}

/// A snapshot, its server, and the handler that guests are restored with.
private final class RestoreSite {
    let workspace: Workspace
    let socket: String
    let handler: Running
    private let kind: GuestKind
    private let hosts: TwoHosts?
    let snapshot: GuestSnapshot
    let address: String
    private var server: Running?
    private var guests: [GuestProcess] = []

    init(_ kind: GuestKind, between hosts: TwoHosts? = nil, memoryMiB: Int = 16, _ options: String...) throws {
        self.kind = kind
        self.hosts = hosts
        workspace = try Workspace()
        socket = workspace.file("uffd.sock")
        snapshot = try kind.snapshot(memoryMiB: memoryMiB, in: workspace.path)
        func start(on host: String?, _ arguments: [String]) throws -> Running {
            guard let hosts, let host else { return try Running(Executable.pageferry, arguments) }
            return try hosts.run(on: host, Executable.pageferry, arguments)
        }
        let listen = hosts == nil ? ["127.0.0.1:0"] : ["\(TwoHosts.sourceAddress):7200", "--insecure"]
        let server = try start(on: hosts?.source, ["serve", "--snapshot", snapshot.memory, "--listen"] + listen)
        do {
            address = String(try server.line(holding: "ready").dropFirst("ready tcp:".count))
            handler = try start(
                on: hosts?.destination,
                ["attach", "--socket", socket, "--from", address, "--log-level", "info"] + options
            )
            _ = try handler.line(holding: "ready")
        } catch {
            server.end()
            throw error
        }
        self.server = server
    }

    /// The process of the worker that was started as the nth.
    func worker(_ number: Int) throws -> Int32 {
        let line = try handler.errorLine(holding: " serves process ", number: number)
        guard let pid = line.split(separator: " ").compactMap({ Int32($0) }).first else { throw TestFailure(line) }
        return pid
    }

    func restore() throws -> GuestProcess { try restore(at: socket) }

    func restore(at socket: String) throws -> GuestProcess {
        let guest = try kind.restore(snapshot, with: socket, in: workspace.path)
        guests.append(guest)
        return guest
    }

    /// Another handler.
    func startHandler(_ options: [String], from server: String? = nil) throws -> Handler {
        let socket = workspace.file("uffd-\(UInt16.random(in: 0...UInt16.max)).sock")
        let running = try Running(
            Executable.pageferry,
            ["attach", "--socket", socket, "--from", server ?? address] + options
        )
        _ = try running.line(holding: "ready")
        return Handler(running: running, socket: socket)
    }

    struct Handler {
        let running: Running
        let socket: String

        func end() { running.end() }
    }

    func endServer() {
        server?.end()
        server = nil
    }

    /// Starts the server again where it was, of its own file or another.
    func startServer(_ file: String? = nil) throws {
        server = try Running(
            Executable.pageferry,
            ["serve", "--snapshot", file ?? snapshot.memory, "--listen", address]
        )
        _ = try server?.line(holding: "ready")
    }

    /// Ends its guests too.
    func end() {
        for guest in guests { guest.end() }
        handler.end()
        endServer()
    }
}

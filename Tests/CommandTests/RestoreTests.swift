import FirecrackerRig
import Foundation
import HugePages
import LinuxSystem
import OwnThread
import PageProtocol
import Testing

/// Guests whose snapshot is on another host: Firecracker if available, and a stand-in for it.
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
        "waits while the link is down or silent, and continues when the link is back",
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
        _ = try site.handler.errorLine(holding: "has lost its link to")
        if isGone { try hosts.mendLink() } else { try hosts.loseNothing(hosts.destination) }
        _ = try site.handler.errorLine(holding: "was reconnected to")
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
        #expect(try guest.perform(.pass) == 2)
    }

    @Test("can be one of ten guests of the same snapshot at the same time", arguments: GuestKind.available)
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
        let site = try RestoreSite(kind, memoryMiB: 256)
        defer { site.end() }
        let guest = try site.restore()
        guest.send(.dispersed)
        guest.send(.pass)
        for number in 1...5 {
            let worker = try site.worker(number)
            // Kill the first worker at once, and later ones while they serve.
            if number > 1 { usleep(UInt32(number) * 20_000) }
            kill(worker, SIGKILL)
            _ = try site.handler.errorLine(holding: "worker \(worker) of process \(guest.pid)")
        }
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
        #expect(try guest.perform(.pass) == 2)
    }

    @Test("only sees a slow fault when the worker that serves it is stopped")
    func workerStuck() throws {
        let site = try RestoreSite(.standIn, "--give-up", "4s")
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        let worker = try site.worker(1)
        kill(worker, SIGSTOP)
        guest.send(.pass)
        let line = try site.handler.errorLine(holding: "worker \(worker) of process \(guest.pid)")
        #expect(line.contains("has done nothing for 2"), "\(line)")
        #expect(try guest.wait(for: "pass") == 1)
    }

    @Test("never gets a page back that its balloon took, whichever worker serves it", arguments: GuestKind.available)
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

    @Test("is served while it drops pages during faults, and in separate regions")
    func dropsBesideFaults() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let guest = try StandIn.restore([6 << 20, 10 << 20], with: site.socket, in: site.workspace.path)
        defer { guest.end() }
        for _ in 0..<4 { try guest.perform(.inflateBesideFaults) }
        #expect(try guest.perform(.pass) == 1)
    }

    @Test(
        "has a worker whose command line names its process, and does not show the memory's addresses",
        arguments: GuestKind.available
    )
    func commandLine(kind: GuestKind) throws {
        let site = try RestoreSite(kind)
        defer { site.end() }
        let guest = try site.restore()
        defer { guest.end() }
        let worker = try site.worker(1)
        var words: [Substring] = []
        // For a moment, a worker has the arguments of the process that it is a copy of.
        while words.first?.hasPrefix("pageferry-guest-") != true {
            words = try ProcessFile.read("/proc/\(worker)/cmdline").split(separator: "\0")
        }
        #expect(words == ["pageferry-guest-\(guest.pid)"])
    }

    @Test("of huge pages gets them, even when its worker is killed")
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

    @Test("of huge pages is lost when the pool is empty for too long, even for a page that it had dropped")
    func noHugePages() throws {
        try HugePages.with(free: 8) {
            let site = try RestoreSite(.standIn, "--give-up", "1s", "--on-lost", "kill")
            defer { site.end() }
            let guest = try StandIn.restore([16 << 20], pageSize: 2 << 20, with: site.socket, in: site.workspace.path)
            defer { guest.end() }
            // The next page of the pass.
            _ = try guest.perform(.workingSet)
            #expect(try guest.perform(.inflate) == 512)
            let count = HugePagePool.available
            let other = try MemoryRegion(name: "other", pageSize: HugePagePool.pageSize, pageCount: count)
            guest.send(.pass)
            let line = try site.handler.errorLine(holding: "it is killed")
            #expect(line.contains("it has waited for a huge page: the pool of huge pages of 2 MiB is empty"), "\(line)")
            #expect(line.contains("vm.nr_hugepages"), "\(line)")
            #expect(try guest.waitForEnd() == SIGKILL)
            withExtendedLifetime(other) {}
        }
    }

    @Test("waits while the server is away, and continues when the server is back", arguments: GuestKind.available)
    func serverReturns(kind: GuestKind) throws {
        let site = try RestoreSite(kind, memoryMiB: 64)
        defer { site.end() }
        let guest = try site.restore()
        guest.send(.dispersed)
        _ = try guest.perform(.workingSet)
        site.endServer()
        guest.send(.pass)
        _ = try site.handler.errorLine(holding: "has lost its link to")
        try site.startServer()
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
        _ = try site.handler.errorLine(holding: "was reconnected to")
    }

    @Test("whose record can no longer be written is reported once")
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
        _ = try handler.running.errorLine(holding: "stopped serving")
        let lines = handler.running.errorText.split(separator: "\n")
        #expect(lines.count { $0.contains("is not recorded") } == 1, "\(lines)")
    }

    @Test("whose record goes to a slow disk keeps its worker")
    func slowRecord() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let (socket, record) = (site.workspace.file("u.sock"), site.workspace.file("set"))
        let library = try site.workspace.compile("slow_fsync", "-shared", "-fPIC")
        // A worker counts as stuck after 2 s.
        let options = site.arguments([
            "--socket", socket, "--state", site.workspace.file("state"), "--record", record, "--window", "200ms",
            "--give-up", "2s",
        ])
        let command = "export LD_PRELOAD=\(library) SLOW_FSYNC=3; exec \(Executable.pageferry) \"$@\""
        let handler = try site.ready(try site.run("/bin/sh", ["-c", command, "sh"] + options))
        let guest = try site.restore(at: socket)
        #expect(try guest.perform(.workingSet) == 1)
        _ = try handler.errorLine(holding: "recorded in \(record)", seconds: 60)
        #expect(!handler.errorText.contains("has done nothing"), "\(handler.errorText)")
        #expect(try guest.perform(.pass) == 1)
    }

    @Test("gets the working set that was recorded at its first restore", arguments: GuestKind.available)
    func workingSet(kind: GuestKind) throws {
        let site = try RestoreSite(kind)
        defer { site.end() }
        let record = site.workspace.file("set")
        func restore(_ options: String...) throws -> (demand: Int, ahead: Int) {
            let handler = try site.startHandler(options)
            defer { handler.end() }
            let guest = try site.restore(at: handler.socket)
            // The time depends on the machine; the pages that arrive depend on the record.
            if options.contains("--prefetch") { _ = try handler.running.errorLine(holding: "has its working set") }
            guest.send(.dispersed)
            _ = try guest.perform(.workingSet)
            guest.end()
            let line = try handler.running.errorLine(holding: "stopped serving")
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
        #expect(line.contains("process \(guest.pid) at unix:\(site.socket) cannot get the page at byte "), "\(line)")
        #expect(line.contains("has been unreachable for 1 s"), "\(line)")
        #expect(try guest.waitForEnd() == SIGKILL)
    }

    @Test("is held while the server is gone, and continues afterwards", arguments: GuestKind.available)
    func held(kind: GuestKind) throws {
        let site = try RestoreSite(kind, "--give-up", "1s", "--on-lost", "hold")
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        site.endServer()
        guest.send(.pass)
        _ = try site.handler.errorLine(holding: "it waits until")
        #expect(try state(of: guest.pid) != "T")
        // The next worker must know that the guest is held.
        kill(try site.worker(1), SIGKILL)
        _ = try site.worker(2)
        try site.startServer()
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
    }

    /// The state of a process in /proc: `T` if the process is stopped.
    private func state(of pid: Int32) throws -> Character {
        let line = try String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)
        guard let end = line.lastIndex(of: ")") else { throw TestFailure(line) }
        return line[line.index(end, offsetBy: 2)]
    }

    @Test("that its operator has stopped stays stopped, held or not")
    func stoppedByOperator() throws {
        let site = try RestoreSite(.standIn, "--give-up", "1s", "--on-lost", "hold")
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        site.endServer()
        guest.send(.pass)
        _ = try site.handler.errorLine(holding: "it waits until")
        kill(guest.pid, SIGSTOP)
        try site.startServer()
        _ = try site.handler.errorLine(holding: "gets its pages again")
        #expect(try state(of: guest.pid) == "T")
        kill(guest.pid, SIGCONT)
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
    }

    @Test(
        "is held while the server serves another file of its size and time, and continues with its own",
        arguments: GuestKind.available
    )
    func otherFile(kind: GuestKind) throws {
        let site = try RestoreSite(kind, "--give-up", "60s", "--on-lost", "hold")
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        site.endServer()
        guest.send(.pass)
        let other = try site.copyOfMemory(changedAtPage: 0)
        try site.startServer(other)
        let line = try site.handler.errorLine(holding: "it waits until")
        #expect(line.contains("serves another file than before; it waits until 127.0.0.1:"), "\(line)")
        #expect(line.hasSuffix(" serves the file that it was restored from"), "\(line)")
        site.endServer()
        try site.startServer()
        #expect(try guest.wait(for: "pass", seconds: 60) == 1)
    }

    @Test("is lost when a server accepts it and does not answer requests")
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
        #expect(line.contains("has not answered for 1 s"), "\(line)")
        #expect(try guest.waitForEnd() == SIGKILL)
    }

    @Test("retries a server all of whose connections are in use, and says so", arguments: ["kill", "hold"])
    func fullServer(policy: String) throws {
        let site = try RestoreSite(serverOf: .standIn, serving: ["--max-connections", "3", "--peer-timeout", "100s"])
        defer { site.end() }
        let socket = site.workspace.file("uffd.sock")
        let handler = try site.attach("--socket", socket, "--give-up", "1s", "--on-lost", policy)
        let first = try site.restore(at: socket)
        _ = try first.perform(.workingSet)
        let second = try site.restore(at: socket)
        second.send(.pass)
        let words = "the server refuses: all 3 connections are in use; try again later"
        let retry = try handler.errorLine(holding: "is turned away by")
        #expect(retry.contains("process \(second.pid) at "), "\(retry)")
        #expect(retry.contains(" is turned away by \(site.address), and retries: \(words)"), "\(retry)")
        let line = try handler.errorLine(holding: policy == "kill" ? "it is killed" : "it waits until")
        #expect(line.contains("is there, but the guest has had no link to it for 1 s: \(words)"), "\(line)")
        #expect(!handler.errorText.contains("unreachable"))
        if policy == "kill" {
            #expect(try second.waitForEnd() == SIGKILL)
        } else {
            first.end()
            #expect(try second.wait(for: "pass", seconds: 60) == 1)
        }
    }

    @Test("is not served by a server of an older release, and one line says so")
    func olderServer() throws {
        let server = try SilentServer(capabilities: .startResult)
        defer { server.end() }
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let handler = try site.startHandler(["--give-up", "1s", "--on-lost", "kill"], from: server.address)
        defer { handler.end() }
        let guest = try site.restore(at: handler.socket)
        guest.send(.pass)
        let words = "is of a release that does not prove which snapshot it serves; run the same pageferry release on"
        let line = try handler.running.errorLine(holding: words)
        #expect(line.contains("has no link to its server yet"), "\(line)")
        let loss = try handler.running.errorLine(holding: "it is killed")
        #expect(loss.contains(words), "\(loss)")
        #expect(try guest.waitForEnd() == SIGKILL)
    }

    @Test("is still served when nobody reads the handler's log, whose lines are dropped and counted")
    func unreadLog() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let (socket, log) = (site.workspace.file("unread.sock"), site.workspace.file("log"))
        #expect(mkfifo(log, 0o600) == 0)
        // The pipe stays open, with no room from the beginning.
        let pipe = open(log, O_RDWR | O_NONBLOCK)
        defer { close(pipe) }
        while write(pipe, [UInt8](repeating: 10, count: 4096), 4096) > 0 {}
        let state = site.workspace.file("unread")
        let command =
            "exec \(Executable.pageferry) attach --socket \(socket) --from \(site.address) --state \(state) "
            + "--give-up 1s --on-lost kill 2>\(log)"
        let handler = try Running("/bin/sh", ["-c", command])
        defer { handler.end() }
        _ = try handler.line(holding: "ready")
        let (guest, lost) = (try site.restore(at: socket), try site.restore(at: socket))
        #expect(try guest.perform(.pass) == 1)
        _ = try lost.perform(.workingSet)
        site.endServer()
        lost.send(.pass)
        #expect(try lost.waitForEnd() == SIGKILL)
        kill(handler.pid, SIGTERM)
        guest.end()
        // Room again: the next line follows the count of those before.
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        _ = read(pipe, &bytes, bytes.count)
        #expect(try handler.finish().status == 0)
    }

    @Test("is still served when the handler's log cannot be written")
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

    @Test("is still followed by a handler that was told to exit, which exits after the guest")
    func toldToEnd() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        kill(site.handler.pid, SIGTERM)
        _ = try site.handler.errorLine(holding: "accepting no more guests")
        kill(try site.worker(1), SIGKILL)
        _ = try site.worker(2)
        #expect(try guest.perform(.pass) == 1)
        guest.end()
        #expect(try site.handler.finish().status == 0)
    }

    @Test("gets a new worker as soon as one can be started")
    func shortage() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let guest = try site.restore()
        _ = try guest.perform(.workingSet)
        try site.limitHandler(toDescriptors: 4)
        kill(try site.worker(1), SIGKILL)
        _ = try site.handler.errorLine(holding: "process \(guest.pid) at unix:\(site.socket) has no worker")
        try site.limitHandler(toDescriptors: 1024)
        #expect(try guest.perform(.pass) == 1)
    }

    @Test("that no worker could ever serve is held, and continues with the first worker")
    func shortageFromTheStart() throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let (socket, shortage) = (site.workspace.file("short.sock"), site.workspace.file("shortage"))
        let library = try site.workspace.compile("no_memory_files", "-shared", "-fPIC")
        let command =
            "export LD_PRELOAD=\(library) NO_MEMORY_FILES=\(shortage); exec \(Executable.pageferry) attach "
            + "--socket \(socket) --from \(site.address) --give-up 1s --on-lost hold"
        let handler = try Running("/bin/sh", ["-c", command])
        defer { handler.end() }
        _ = try handler.line(holding: "ready")
        #expect(FileManager.default.createFile(atPath: shortage, contents: nil))
        let guest = try site.restore(at: socket)
        _ = try handler.errorLine(holding: "it waits for the first worker")
        try FileManager.default.removeItem(atPath: shortage)
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

    @Test("continues while other hand-offs are refused, whose processes are killed or left as the operator says")
    func badHandOffs() throws {
        let one = #"{"base_host_virt_addr":4194304,"size":8192,"offset":0,"page_size":4096}"#
        let cases: [(message: String, descriptors: Int, reason: String)] = [
            ("[\(one)]", 0, "0 descriptors"), ("[\(one)]", 3, "secret-free memory"), ("[\(one)]", 4, "4 descriptors"),
            ("[\(one)]", 1, "no userfaultfd"),
            ("[\(one.dropLast(9))", 1, "is not the JSON that Firecracker sends"), ("[]", 1, "has 0 regions"),
            ("[\(one),\(one)]", 1, "overlap at address 4194304"),
            (#"[{"base_host_virt_addr":4096,"size":8192,"offset":0,"page_size":3}]"#, 1, "pages of 3 bytes"),
            (#"[{"base_host_virt_addr":18446744073709547520,"size":8192,"offset":0}]"#, 1, "is no range of pages"),
        ]
        for policy in ["kill", "leave"] {
            let site = try RestoreSite(.standIn, "--on-refused", policy)
            defer { site.end() }
            let guest = try site.restore()
            for (message, descriptors, reason) in cases {
                let sender = try Executable.run(
                    "/usr/bin/python3",
                    ["-c", Self.sender, site.socket, message, "\(descriptors)"]
                )
                // A process that sent no descriptor keeps its memory, and is left alone.
                let isKilled = policy == "kill" && descriptors > 0
                #expect(sender.status == (isKilled ? SIGKILL : 0), "\(sender)")
                let pid = sender.output.trimmingCharacters(in: .newlines)
                let line = try site.handler.errorLine(holding: "refused process \(pid) at unix:\(site.socket)")
                #expect(line.contains(reason), "\(line)")
                #expect(line.contains("it was killed") == isKilled, "\(line)")
                #expect(line.contains("it waits for its memory for ever") == (!isKilled && descriptors > 0), "\(line)")
            }
            #expect(try guest.perform(.pass) == 1)
        }
    }

    @Test(
        "is served after a hand-off in any known form",
        arguments: ["parts", "stratovirt", "space", "regions"]
    )
    func formsOfHandOff(form: String) throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let program = Workspace.fixture("hand_off_forms.py")
        let guest = try Executable.run("/usr/bin/python3", ["-B", program, site.socket, site.snapshot.memory, form])
        #expect(guest.status == 0, "\(guest)")
        #expect(guest.output.contains("0 of 4096 pages are wrong"), "\(guest)")
    }

    @Test(
        "is served on after its hand-off's connection or process is gone, because the memory is asked",
        arguments: ["hang-up", "stratovirt-hang-up", "relay", "late-relay"]
    )
    func memoryOutlivesHandOff(form: String) throws {
        let site = try RestoreSite(.standIn)
        defer { site.end() }
        let program = Workspace.fixture("hand_off_forms.py")
        let arguments = ["-B", program, site.socket, site.snapshot.memory, form]
        let guest = try Running("/usr/bin/python3", arguments)
        defer { guest.end() }
        // The next worker must not take the end of the connection or of the relay for the guest's either.
        kill(try site.worker(1), SIGKILL)
        let finished = try guest.finish()
        #expect(finished.output.contains("0 of 4096 pages are wrong"), "\(finished)")
        _ = try site.handler.errorLine(holding: "stopped serving")
    }

    /// A Python program that sends a message with copies of its standard input, and waits until the other end hangs up.
    private static let sender = """
        import array, os, socket, sys
        s = socket.socket(socket.AF_UNIX)
        s.connect(sys.argv[1])
        fds = array.array('i', [0] * int(sys.argv[3]))
        # Printed first, since a process whose hand-off is refused is killed.
        print(os.getpid(), flush=True)
        s.sendmsg([sys.argv[2].encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else [])
        s.recv(1)
        """
}

import Foundation
import LinuxSystem
import PageProtocol
import SnapshotClient
import Testing

@Suite("Serving a snapshot")
struct ServeTests {
    /// A `pageferry serve` that has printed its address.
    private struct Server {
        let running: Running
        let address: SocketAddress

        init(_ file: SparseFile, at listen: String = "127.0.0.1:0", on host: (TwoHosts, String)? = nil) throws {
            let arguments = ["serve", "--snapshot", file.path, "--listen", listen]
            if let (hosts, name) = host {
                running = try hosts.run(on: name, Executable.pageferry, arguments + ["--insecure"])
            } else {
                running = try Running(Executable.pageferry, arguments)
            }
            do {
                let line = try running.line(holding: "ready tcp:")
                address = try SocketAddress(String(line.dropFirst(6)))
            } catch {
                running.end()
                throw error
            }
        }
    }

    private static let pageCount = 4096

    private func makeFile() throws -> SparseFile {
        let file = try SparseFile(byteCount: Self.pageCount * 4096)
        try file.write(pages: stride(from: 0, to: Self.pageCount, by: 2))
        return file
    }

    private func join(_ server: Server) throws -> (client: SnapshotClient, urgent: SharedSocket, bulk: SharedSocket) {
        let client = try SnapshotClient(to: server.address)
        try client.take([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: UInt64(Self.pageCount))])
        return (client, try client.join(.urgent), try client.join(.bulk))
    }

    /// Checks the exit status and the last line on standard error, and that a failure has exactly one error line.
    private func expectLastLine(_ finished: Finished, status: Int32, _ words: String) {
        #expect(finished.status == status, "\(finished)")
        let lines = finished.errors.split(separator: "\n")
        #expect(lines.last?.contains(words) == true, "\(finished)")
        #expect(lines.count { $0.hasPrefix("pageferry: ") } == (status == 0 ? 0 : 1), "\(finished)")
    }

    @Test("exits cleanly when told to, and reports what it has sent to each client", .timeLimit(.minutes(1)))
    func endsCleanly() throws {
        for signal in [SIGTERM, SIGINT] {
            let file = try makeFile()
            let server = try Server(file)
            defer { server.running.end() }
            let (client, urgent, _) = try join(server)
            let run = PageRun(region: 0, count: 10, first: 3)
            #expect(try urgent.stream.ask(run).bytes == file.bytes(3 * 4096..<13 * 4096))
            kill(server.running.pid, signal)
            #expect(client.untilHangUp() == "the server of \(file.path) is shutting down")
            let finished = try server.running.finish()
            let end = "1 requests, 10 pages, 5 of them zeros, 20480 bytes"
            expectLastLine(
                finished,
                status: 0,
                "\(file.path) no longer (the server of \(file.path) is shutting down): \(end)"
            )
            #expect(finished.output == "ready \(server.address)\n")
        }
    }

    @Test("warns of a peer that sends half a frame, and not of one that sends nothing", .timeLimit(.minutes(1)))
    func knocks() throws {
        let server = try Server(try makeFile())
        defer { server.running.end() }
        for bytes in [[], [0, 0, 0]] as [[UInt8]] {
            let socket = try StreamSocket(connectingTo: server.address)
            if !bytes.isEmpty { try socket.send(bytes) }
        }
        _ = try server.running.errorLine(holding: "closed the connection in the middle of a frame")
        kill(server.running.pid, SIGTERM)
        let warnings = try server.running.finish().errors.components(separatedBy: "refused a connection").count - 1
        #expect(warnings == 1)
    }

    @Test("exits with one line and status 1 when its file is changed or truncated", .timeLimit(.minutes(1)))
    func fileChanges() throws {
        let changes: [(change: (SparseFile) throws -> Void, words: String)] = [
            ({ try $0.write(pages: [9]) }, "was modified"),
            ({ try $0.resize(to: 4096) }, "has changed its size from 16777216 to 4096 bytes"),
        ]
        for (change, words) in changes {
            let file = try makeFile()
            let server = try Server(file)
            defer { server.running.end() }
            let (client, urgent, bulk) = try join(server)
            // Both lanes serve before the file changes.
            for lane in [urgent, bulk] {
                #expect(try lane.stream.ask(PageRun(region: 0, count: 1, first: 8)).zeroPages == 0)
            }
            try change(file)
            for lane in [urgent, bulk] {
                try? lane.stream.send(.pageRequest(PageRun(region: 0, count: 9, first: 4000)))
                #expect(try lane.stream.receiveFrame() == nil)
            }
            #expect(client.untilHangUp()?.contains(words) == true)
            expectLastLine(try server.running.finish(), status: 3, "pageferry: \(file.path) \(words); serve a file")
        }
    }

    @Test("needs little more memory for ten clients than for one", .timeLimit(.minutes(1)))
    func memoryOfClients() throws {
        let file = try makeFile()
        let server = try Server(file)
        defer { server.running.end() }
        var clients: [(SnapshotClient, SharedSocket, SharedSocket)] = []
        func add(_ count: Int) throws -> Int {
            for _ in 0..<count {
                let (client, urgent, bulk) = try join(server)
                clients.append((client, urgent, bulk))
                for first in stride(from: 0, to: Self.pageCount, by: 256) {
                    let run = PageRun(region: 0, count: 256, first: UInt64(first))
                    _ = try (first % 512 == 0 ? urgent : bulk).stream.ask(run)
                }
            }
            return try proportionalBytes(of: server.running.pid)
        }
        // The first client causes the costs that occur only once.
        let one = try add(1)
        let ten = try add(9)
        // Each busy lane costs the stack of a thread, and a buffer of 256 KiB.
        #expect(ten - one < 9 * (1 << 20), "\(one) bytes for one, \(ten) for ten")
        withExtendedLifetime(clients) {}
    }

    /// The proportional set size of a process in bytes.
    private func proportionalBytes(of pid: Int32) throws -> Int {
        let lines = try String(contentsOfFile: "/proc/\(pid)/smaps_rollup", encoding: .utf8).split(separator: "\n")
        let words = lines.first { $0.hasPrefix("Pss:") }?.split(separator: " ", omittingEmptySubsequences: true)
        guard let words, let kibibytes = Int(words[1]) else { throw TestFailure("no Pss of \(pid)") }
        return kibibytes << 10
    }

    @Test("serves a client on another host", .timeLimit(.minutes(1)))
    func anotherHost() throws {
        let hosts = try TwoHosts()
        let file = try makeFile()
        let server = try Server(file, at: "\(TwoHosts.sourceAddress):7200", on: (hosts, hosts.source))
        defer { server.running.end() }
        // The client on the other host is `bash`, which sends HELLO and prints the kind of the answer's frame.
        let hello = try ControlMessage.hello(SnapshotClient.hello()).encode().map { "\\x" + String($0, radix: 16) }
            .joined()
        let script = """
            exec 3<>/dev/tcp/\(TwoHosts.sourceAddress)/7200; printf '\(hello)' >&3
            head -c 6 <&3 | od -An -tx1
            """
        let client = try hosts.run(on: hosts.destination, "/bin/bash", ["-c", script])
        defer { client.end() }
        #expect(
            try client.finish(seconds: 20).output.trimmingCharacters(in: .whitespacesAndNewlines).hasSuffix("01 00")
        )
        _ = try server.running.errorLine(holding: TwoHosts.destinationAddress)
        #expect(server.running.errorText.contains("is not authenticated"))
    }

    @Test(
        "refuses in one line to serve anything but a file with at least one page",
        .timeLimit(.minutes(1)),
        arguments: [
            ("/nowhere/vm.mem", "cannot open /nowhere/vm.mem: No such file or directory"),
            ("/tmp", "cannot serve /tmp: Invalid argument"), ("/dev/zero", "give a regular file"),
            ("/proc/version", "it has no whole page of 4096 bytes"),
        ]
    )
    func noFile(path: String, words: String) throws {
        let finished = try Executable.pageferry("serve", "--snapshot", path, "--listen", "127.0.0.1:0", seconds: 20)
        #expect(finished.output.isEmpty, "\(finished)")
        expectLastLine(finished, status: 1, words)
    }

    @Test("refuses a limit on connections that serves no guest, or needs too many descriptors", .timeLimit(.minutes(1)))
    func connectionLimits() throws {
        let file = try makeFile()
        let command = ["serve", "--snapshot", file.path, "--listen", "127.0.0.1:0", "--max-connections"]
        let few = try Executable.run(Executable.pageferry, command + ["2"])
        #expect(few.status == 2 && few.errors.contains("--max-connections must be at least 3"), "\(few)")
        let words = (["ulimit -n 400; exec", Executable.pageferry] + command + ["301"]).joined(separator: " ")
        let many = try Executable.run("/bin/sh", ["-c", words])
        expectLastLine(many, status: 1, "cannot hold 301 connections: the limit on descriptors leaves room for 2")
        #expect(many.errors.contains("raise the hard limit of `ulimit -n`, or lower --max-connections"), "\(many)")
    }

    @Test("takes as many connections as its hard limit on descriptors allows", .timeLimit(.minutes(1)))
    func derivedLimit() throws {
        let file = try makeFile()
        let words = "ulimit -n 400; exec \(Executable.pageferry) serve --snapshot \(file.path) --listen 127.0.0.1:0"
        let server = try Running("/bin/sh", ["-c", words])
        defer { server.end() }
        let address = try SocketAddress(String(try server.line(holding: "ready tcp:").dropFirst(6)))
        var clients: [SnapshotClient] = []
        var refusal: String?
        while refusal == nil, clients.count < 200 {
            do {
                clients.append(try SnapshotClient(to: address))
            } catch let error as ServerSays {
                refusal = error.reason
            }
        }
        // A quarter of 400 descriptors is kept free, and the process has some open.
        #expect((90...100).contains(clients.count), "\(clients.count) clients, then: \(refusal ?? "no refusal")")
        #expect(refusal?.hasSuffix(" connections are in use; try again later") == true)
        let last = clients[clients.count - 1]
        try last.take([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 10)])
        #expect(try last.join(.urgent).stream.ask(PageRun(region: 0, count: 1, first: 3)).zeroPages == 1)
    }

    @Test("warns if it gives every user of the host a file that not all may read, but not on a Unix socket")
    func localUsers() throws {
        let file = try makeFile()
        let workspace = try Workspace()
        let warning = "pageferry serve: warning: "
        for (mode, listen, warns) in [
            (0o600, "127.0.0.1:0", true), (0o644, "127.0.0.1:0", false),
            (0o600, "unix:\(workspace.file("s.sock"))", false),
        ] {
            #expect(chmod(file.path, mode_t(mode)) == 0)
            let server = try Running(Executable.pageferry, ["serve", "--snapshot", file.path, "--listen", listen])
            defer { server.end() }
            let address = try SocketAddress(String(try server.line(holding: "ready ").dropFirst(6)))
            if case .unix(let path) = address {
                let client = try SnapshotClient(to: address)
                try client.take([SnapshotSlice(offset: 0, pageSize: 4096, pageCount: 1)])
                let permissions = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions]
                #expect(permissions as? Int == 0o600)
            }
            kill(server.pid, SIGTERM)
            let finished = try server.finish()
            let told = finished.errors.split(separator: "\n").filter { $0.contains(" " + warning) }
            #expect(told.count == (warns ? 1 : 0), "\(finished)")
            if warns { #expect(told.first?.hasSuffix("use --listen unix:PATH, which only its owner can open") == true) }
        }
    }
}

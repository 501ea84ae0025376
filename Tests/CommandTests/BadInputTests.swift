import Foundation
import LinuxSystem
import Testing

@Suite("Bad input")
struct BadInputTests {
    /// One line on standard error, nothing on standard output, and this exit status.
    private func expectOneLine(_ finished: Finished, status: Int32, holding words: String...) {
        #expect(finished.status == status, "\(finished)")
        #expect(finished.output.isEmpty, "\(finished)")
        let lines = finished.errors.split(separator: "\n")
        for word in words { #expect(lines.contains { $0.contains(word) }, "no '\(word)' in \(finished)") }
    }

    @Test(
        "unknown options and nonsense values are usage errors",
        arguments: [
            ["demo", "--memroy", "1GiB"], ["demo", "--memory", "lots"], ["demo", "--workload", "sort"],
            ["demo", "--threads", "0"], ["demo", "--write", "1.5"], ["demo", "--device", "broken:always"],
            ["demo", "--think-time", "soon"], ["demo", "--max-bandwidth", "fast"], ["demo", "--max-bandwidth", "-1"],
            ["demo", "--release-ram", "--no-push"],
            ["demo", "--max-bandwidth", "1MiB", "--no-push"], ["demo", "--in-thread", "--prefetch", "streams"],
            ["destination", "--qmp", "/tmp/b.sock", "--attach", "/tmp/a.sock", "--in-thread"], ["ferry"], ["migrate"],
            ["source", "--qmp", "nowhere"],
            ["demo", "--regions", "65"], ["demo", "--device", "large:512", "--device", "large:512"],
            ["source", "--qmp", "/tmp/a.sock", "--memory", "2TiB"], ["demo", "--page-size", "3"],
            ["demo", "--page-size", "1GiB"], ["demo", "--page-size", "2MiB", "--memory", "3MiB"],
            ["destination", "--qmp", "/tmp/b.sock", "--qmp", "tcp:127.evil.example:0"],
            ["destination", "--qmp", "/tmp/b.sock", "--listen", "unix:/tmp/b"],
            ["destination", "--qmp", "/tmp/b.sock", "--attach", ""],
            ["destination", "--qmp", "/tmp/b.sock", "--prefetch", "all"],
            ["destination", "--qmp", "/tmp/b.sock", "--prefetch-window", "0"],
            ["demo", "--prefetch-window", "1025"], ["demo", "--prefetch", "fault-around", "--prefetch-window", "-1"],
            ["demo", "--prefetch", "none", "--prefetch-window", "16"], ["demo", "--fault-threads", "0"],
            ["demo", "--fault-threads", "17"], ["demo", "--fault-threads", "2", "--in-thread"],
            ["destination", "--qmp", "/tmp/b.sock", "--attach", "/" + String(repeating: "x", count: 107)],
            ["migrate", "--source", "/tmp/a.sock", "--destination", "/tmp/b.sock", "--uri", "unix:/tmp/b"],
            ["attach", "--socket", "/tmp/u.sock"], ["attach", "--from", "127.0.0.1:1"],
            ["attach", "--socket", "/tmp/u.sock", "--from", "unix:"],
            ["attach", "--socket", "/tmp/u.sock", "--from", "127.0.0.1:1", "--on-lost", "pause"],
            ["attach", "--socket", "/tmp/u.sock", "--from", "127.0.0.1:1", "--window", "0"],
            ["attach", "--socket", "", "--from", "127.0.0.1:1"],
            ["serve", "--listen", "127.0.0.1:0"], ["serve", "--snapshot", "/tmp/vm.mem"],
            ["serve", "--snapshot", "/tmp/vm.mem", "--listen", "0.0.0.0:0"],
            ["serve", "--snapshot", "/tmp/vm.mem", "--listen", "unix:"],
            ["demo", "--vcpus", "2"], ["demo", "--serial", "/dev/null"],
        ]
    )
    func usage(arguments: [String]) throws {
        let finished = try Executable.run(Executable.pageferry, arguments)
        #expect(finished.status == 2, "\(finished)")
        #expect(finished.output.isEmpty, "\(finished)")
        #expect(finished.errors.contains("rror"), "\(finished)")
    }

    @Test(
        "an option's wrong value is told with the form that is expected",
        arguments: [
            (["source", "--qmp", "/tmp/a.sock", "--guest", "/run/vm.sock"], "write firecracker:PATH"),
            (["migrate", "--destination", "/tmp/b.sock", "--guest", "vm"], "write firecracker:PATH"),
            (["source", "--qmp", "/tmp/a.sock", "--lease", "name"], "write DIR/NAME"),
            (["source", "--qmp", "/tmp/a.sock", "--peer-timeout", "5"], "ns, us, ms or s, such as 500ms"),
            (
                ["destination", "--qmp", "/tmp/b.sock", "--listen", "127.0.0.1:99999"],
                "a port is a number from 0 to 65535"
            ),
            (["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:abc"], "a port is a number from 0 to 65535"),
            (
                ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--window", "5s"],
                "--window is for how long pages are recorded; give --record"
            ),
            (
                [
                    "destination", "--qmp", "/tmp/b.sock", "--guest", "firecracker:/run/vm.sock", "--serial",
                    "/dev/null",
                ],
                "--serial is for guests of --workload kvm"
            ),
        ]
    )
    func forms(arguments: [String], words: String) throws {
        let finished = try Executable.run(Executable.pageferry, arguments)
        expectOneLine(finished, status: 2, holding: words)
    }

    @Test("a record that cannot be written is told before a guest attaches", .timeLimit(.minutes(1)))
    func unwritableRecord() throws {
        let workspace = try Workspace()
        for (path, words) in [
            (workspace.path, "give a regular file or a new name"), ("/dev/null", "give a regular file or a new name"),
            (
                "/proc/x",
                "cannot write /proc/x: No such file or directory; give a file in a folder that you can write to"
            ),
            (workspace.file("none/x"), "cannot open the directory \(workspace.file("none"))"),
        ] {
            let finished = try Executable.pageferry(
                "attach",
                "--socket",
                workspace.file("uffd.sock"),
                "--from",
                "127.0.0.1:1",
                "--record",
                path,
                seconds: 20
            )
            expectOneLine(finished, status: 1, holding: words)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: workspace.path).isEmpty)
    }

    @Test(
        "what a guest in a virtual machine cannot have is told in one line",
        arguments: [
            (["--vcpus", "0"], "a guest cannot have 0 vCPUs; give 1 to 12"),
            (["--vcpus", "13"], "a guest cannot have 13 vCPUs; give 1 to 12"),
            (["--memory", "1MiB"], "give 2 MiB to 3 GiB"), (["--memory", "4GiB"], "give 2 MiB to 3 GiB"),
            (["--memory", "4097KiB"], "is not whole pages of 4096 bytes"),
            (["--page-size", "2MiB"], "--page-size is not for --workload kvm"),
            (["--regions", "2"], "--regions is not for --workload kvm"),
            (["--threads", "2"], "--threads is not for --workload kvm"),
            (["--write", "0.5"], "--write is not for --workload kvm"),
            (["--think-time", "1us"], "--think-time is not for --workload kvm"),
            (["--seed", "2"], "--seed is not for --workload kvm"),
            (["--load", "README.md"], "--load is not for --workload kvm"),
            (["--device", "broken:load"], "--device is not for --workload kvm"),
            (["--no-ledger"], "--no-ledger is not for --workload kvm"), (["--in-thread"], "--in-thread is for"),
        ]
    )
    func virtualMachine(options: [String], words: String) throws {
        let finished = try Executable.run(Executable.pageferry, ["demo", "--workload", "kvm"] + options)
        expectOneLine(finished, status: 2, holding: words)
    }

    @Test("a port in use is told in one line", .timeLimit(.minutes(1)))
    func portInUse() throws {
        let workspace = try Workspace()
        let taken = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let address = String(taken.address.description.dropFirst(4))
        let finished = try Executable.pageferry(
            "destination",
            "--qmp",
            workspace.file("b.sock"),
            "--listen",
            address,
            seconds: 30
        )
        expectOneLine(finished, status: 1, holding: "Address already in use")
    }

    @Test(
        "beyond loopback an agent listens only when told it is insecure",
        .timeLimit(.minutes(1)),
        arguments: [
            ["--listen", "0.0.0.0:0"], ["--qmp", "tcp:0.0.0.0:0"], ["--qmp", "[::]:0"],
            ["--qmp", "127.example.org:0"],
        ]
    )
    func beyondLoopback(options: [String]) throws {
        let workspace = try Workspace()
        let arguments = ["destination", "--qmp", workspace.file("b.sock")] + options
        let finished = try Executable.run(Executable.pageferry, arguments, seconds: 30)
        #expect(finished.status != 0)
        #expect(finished.output.isEmpty, "\(finished)")
        #expect(finished.errors.contains("--insecure"), "\(finished)")
    }

    @Test("without permission on userfaultfd one line says how to get it", .timeLimit(.minutes(1)))
    func noPermission() throws {
        let workspace = try Workspace()
        // Nobody may use the device, nor the system call while vm.unprivileged_userfaultfd is 0.
        let copy = workspace.file("pageferry")
        try FileManager.default.copyItem(atPath: Executable.pageferry, toPath: copy)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: workspace.path)
        let finished = try Executable.run(
            "/usr/bin/setpriv",
            [
                "--reuid=65534", "--regid=65534", "--clear-groups", "env", "TMPDIR=/tmp", copy, "demo", "--memory",
                "16MiB",
            ]
        )
        expectOneLine(finished, status: 1, holding: "/dev/userfaultfd")
        #expect(finished.errors.contains("setfacl"), "\(finished)")
        #expect(!finished.errors.contains("Fatal error"), "\(finished)")
    }

    @Test("a workload that does not fit in memory is refused before anything stops", .timeLimit(.minutes(1)))
    func loadTooLarge() throws {
        let workspace = try Workspace()
        try String(repeating: "a line\n", count: 2_000_000).write(
            toFile: workspace.file("log"),
            atomically: false,
            encoding: .utf8
        )
        let finished = try Executable.pageferry(
            "demo",
            "--workload",
            "kv",
            "--memory",
            "1MiB",
            "--load",
            workspace.file("log")
        )
        #expect(finished.status != 0)
        #expect(finished.errors.split(separator: "\n").count >= 1, "\(finished)")
        #expect(!finished.errors.contains("Fatal error"), "\(finished)")
    }

    @Test("garbage on the migration port disturbs nobody", .timeLimit(.minutes(2)))
    func garbage() throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let line = try destination.running.line(holding: "tcp:")
        guard let word = line.split(separator: " ").last(where: { $0.hasPrefix("tcp:") }) else {
            throw TestFailure("no address in '\(line)'")
        }
        let address = try SocketAddress(String(word))
        let oversized: [UInt8] = [0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0]
        let version9: [UInt8] = [8, 0, 0, 0, 1, 0, 0, 0, 0x50, 0x47, 0x46, 0x59, 9, 0, 1, 0]
        let hostile = [Array("GET / HTTP/1.1\r\n\r\n".utf8), oversized, version9, [0x51, 0, 0, 0, 1, 0], []]
        for bytes in hostile {
            let socket = try StreamSocket(connectingTo: address)
            try socket.send(bytes)
        }
        let finished = try Executable.migrate(source, destination, "--json")
        #expect(finished.status == 0, "\(finished)")
        #expect(destination.running.errorText.contains("version 9"), "\(destination.running.errorText)")
    }

    @Test("one flipped bit in a page makes the report say so", .timeLimit(.minutes(2)))
    func flippedBit() throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(
            in: workspace,
            "--memory",
            "16MiB",
            "--workload",
            "sequential",
            "--write",
            "0",
            "--think-time",
            "1ms"
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let line = try destination.running.line(holding: "tcp:")
        guard let word = line.split(separator: " ").last(where: { $0.hasPrefix("tcp:") }) else {
            throw TestFailure("no address in '\(line)'")
        }
        let relay = try FlippingRelay(to: SocketAddress(String(word)))
        defer { relay.stop() }
        let finished = try Executable.pageferry(
            "migrate",
            "--source",
            source.socket,
            "--destination",
            destination.socket,
            "--uri",
            relay.address.description,
            "--verify",
            "--json"
        )
        #expect(relay.flipped)
        #expect(finished.status == 1, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "failed")
        #expect(try report.number("verify", "corrupt") >= 1)
    }

    @Test("the reason for which no migration began is told, whichever command it meets", .timeLimit(.minutes(2)))
    func nobodyListens() throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let closed = try { try Listener(at: .tcp(host: "127.0.0.1", port: 0)).address }()
        let agents = ["--source", source.socket, "--destination", destination.socket]
        let finished = try Executable.run(
            Executable.pageferry,
            ["migrate", "--uri", closed.description, "--json"] + agents
        )
        #expect(finished.status == 1, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "failed")
        #expect(try report.value("runs_on") == "source")
        let error: String = try report.value("error")
        #expect(error.contains("Connection refused"))
        // The destination still waits.
        let again = try Executable.run(Executable.pageferry, ["migrate", "--json"] + agents)
        #expect(again.status == 0, "\(again)")
    }

    @Test("a destination whose migration failed takes the next", .timeLimit(.minutes(2)))
    func nextAfterFailure() throws {
        let workspace = try Workspace()
        let broken = try AgentProcess.source(in: workspace, "--memory", "16MiB", "--device", "broken:load")
        defer { broken.end() }
        let destination = try AgentProcess.destination(in: workspace)
        defer { destination.end() }
        let first = try Executable.migrate(broken, destination, "--json")
        #expect(first.status == 1, "\(first)")
        let other = try Workspace()
        let source = try AgentProcess.source(in: other, "--memory", "16MiB")
        defer { source.end() }
        let second = try Executable.migrate(source, destination, "--verify", "--json")
        #expect(second.status == 0, "\(second)")
        #expect(try Printed(second.output).number("verify", "corrupt") == 0)
    }

    @Test("a source that dies while pages are missing ends the command unchecked", .timeLimit(.minutes(2)))
    func sourceDies() throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(
            in: workspace,
            "--memory",
            "64MiB",
            "--no-push",
            "--think-time",
            "1ms"
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace)
        defer { destination.end() }
        let migrating = try Running(
            Executable.pageferry,
            [
                "migrate", "--source", source.socket, "--destination", destination.socket, "--verify", "--json",
            ]
        )
        defer { migrating.end() }
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !destination.qmp("query-migrate").contains("postcopy-active"), Date() < deadline {}
        source.end()
        let finished = try migrating.finish(seconds: 30)
        #expect(finished.status == 1, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("result") == "paused")
        #expect(try report.number("verify", "pages_checked") == 0)
    }
}

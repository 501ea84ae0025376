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
            ["demo", "--release-ram", "--no-push"], ["demo", "--push-lanes", "0"], ["demo", "--push-lanes", "65"],
            ["demo", "--push-lanes", "x"], ["source", "--qmp", "/tmp/a.sock", "--push-lanes", "-1"],
            ["demo", "--push-lanes", "4", "--no-push"], ["demo", "--compress", "x"],
            ["demo", "--compress", "zstd", "--no-push"], ["migrate", "--compress", "gzip"],
            ["demo", "--max-bandwidth", "1MiB", "--no-push"], ["demo", "--in-thread", "--prefetch", "streams"],
            ["destination", "--qmp", "/tmp/b.sock", "--attach", "/tmp/a.sock", "--in-thread"], ["ferry"], ["migrate"],
            ["source", "--qmp", "7471"],
            ["demo", "--regions", "65"], ["demo", "--device", "large:512", "--device", "large:512"],
            ["source", "--qmp", "/tmp/a.sock", "--memory", "2TiB"], ["demo", "--page-size", "3"],
            ["demo", "--page-size", "1GiB"], ["demo", "--page-size", "2MiB", "--memory", "3MiB"],
            ["destination", "--qmp", "/tmp/b.sock", "--qmp", "tcp:127.evil.example:0"],
            ["destination", "--qmp", "/tmp/b.sock", "--listen", "unix:/tmp/b"],
            ["destination", "--qmp", "/tmp/b.sock", "--attach", ""],
            ["destination", "--qmp", "/tmp/b.sock", "--prefetch", "all"],
            ["destination", "--qmp", "/tmp/b.sock", "--prefetch-window", "0"],
            ["attach", "--socket", "/tmp/s", "--from", "127.0.0.1:1", "--record", "/tmp/r", "--fill"],
            ["attach", "--socket", "/tmp/s", "--from", "127.0.0.1:1", "--fill=-1"],
            ["attach", "--socket", "/tmp/s", "--from", "127.0.0.1:1", "--fill=fast"],
            ["attach", "--fill=fast", "--socket", "/tmp/s", "--from", "127.0.0.1:1"],
            ["demo", "--prefetch-window", "1025"], ["demo", "--prefetch", "fault-around", "--prefetch-window", "-1"],
            ["demo", "--prefetch", "none", "--prefetch-window", "16"], ["demo", "--fault-threads", "0"],
            ["demo", "--fault-threads", "17"], ["demo", "--fault-threads", "2", "--in-thread"],
            ["destination", "--qmp", "/tmp/b.sock", "--attach", "/" + String(repeating: "x", count: 4095)],
            ["migrate", "--source", "/tmp/a.sock", "--destination", "/tmp/b.sock", "--uri", "unix:/tmp/b"],
            ["attach", "--socket", "/tmp/u.sock"], ["attach", "--from", "127.0.0.1:1"],
            ["attach", "--socket", "/tmp/u.sock", "--from", "unix:"],
            ["attach", "--socket", "/tmp/u.sock", "--from", "127.0.0.1:1", "--on-lost", "pause"],
            ["attach", "--socket", "/tmp/u.sock", "--from", "127.0.0.1:1", "--window", "0"],
            ["attach", "--socket", "", "--from", "127.0.0.1:1"],
            ["attach", "--socket", "/" + String(repeating: "x", count: 4095), "--from", "127.0.0.1:1"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-owner", "root:root"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-owner", "1234"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-owner", "1:2:3"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-owner", "4294967295:0"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-owner", "-1:0"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-mode", "0680"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-mode", "4755"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-mode", "u=rw"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-mode", ""],
            ["attach", "--socket", "/tmp/u", "--socket", "/tmp/v", "--from", "unix:/tmp/v"],
            ["attach", "--socket-owner", "0:0", "--from", "127.0.0.1:1"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--max-guests", "0"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--max-guests", "65537"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--max-guests-per-uid=-1"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--allow-uid", "nobody"],
            ["serve", "--listen", "127.0.0.1:0"], ["serve", "--snapshot", "/tmp/vm.mem"],
            ["serve", "--snapshot", "/tmp/vm.mem", "--listen", "0.0.0.0:0"],
            ["serve", "--snapshot", "/tmp/vm.mem", "--listen", "unix:"],
            ["source", "--qmp", "/tmp/a.sock", "--http", "0.0.0.0:9100"],
            ["source", "--qmp", "/tmp/a.sock", "--http", "9100"],
            ["source", "--qmp", "/tmp/a.sock", "--http-control", "/tmp/token"],
            ["serve", "--snapshot", "/tmp/vm.mem", "--listen", "127.0.0.1:0", "--http", "0.0.0.0:9100"],
            ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--http", "0.0.0.0:9100"],
            ["demo", "--vcpus", "2"], ["demo", "--serial", "/dev/null"], ["compare"], ["compare", "/tmp/one"],
            ["destination", "--qmp", "/tmp/b.sock", "--allow-hook", "/srv/hook", "--allow-hook", "/srv/"],
        ]
    )
    func usage(arguments: [String]) throws {
        let finished = try Executable.run(Executable.pageferry, arguments)
        #expect(finished.status == 2, "\(finished)")
        #expect(finished.output.isEmpty, "\(finished)")
        #expect(finished.errors.hasPrefix("error: "), "\(finished)")
        #expect(finished.errors.contains(/; see pageferry( [a-z]+)? --help\n$/), "\(finished)")
        #expect(finished.errors.split(separator: "\n").count == 1, "\(finished)")
    }

    @Test(
        "an option's wrong value is told with the form that is expected",
        arguments: [
            (["source", "--qmp", "/tmp/a.sock", "--guest", "/run/vm.sock"], "write firecracker:PATH"),
            (["migrate", "--destination", "/tmp/b.sock", "--guest", "vm"], "write firecracker:PATH"),
            (["source", "--qmp", "/tmp/a.sock", "--lease", "name"], "write DIR/NAME"),
            (["source", "--qmp", "/tmp/a.sock", "--peer-timeout", "5"], "ns, us, ms or s; use 5s"),
            (["source", "--qmp", "/tmp/a.sock", "--recover-for", "5m"], "use 300s"),
            (["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--give-up", "2hours"], "use 7200s"),
            (["demo", "--timeout", "90"], "use 90s"), (["demo", "--think-time", "10µs"], "use 10us"),
            (["demo", "--think-time", "soon"], "such as 500ms"),
            (["source", "--qpm", "/tmp/a.sock"], "unknown option '--qpm' (did you mean '--qmp'?)"),
            (
                ["migrate", "--soruce=/a", "--destination", "/b"],
                "unknown option '--soruce' (did you mean '--source'?)"
            ),
            (["demo", "--zzzzzz"], "unknown option '--zzzzzz';"),
            (["migrat", "--source", "/a"], "unknown command 'migrat' (did you mean 'migrate'?); see pageferry --help"),
            (["help", "satus"], "unknown command 'satus' (did you mean 'status'?)"),
            (["demo", "--workload", "sort"], "write one of sequential, random, zipf, chase, kv, kvm"),
            (["source", "--qmp", "/tmp/a.sock", "--on-start-failure", "x"], "write one of 'resume' and 'wait'"),
            (["destination", "--qmp", "/tmp/b", "--prefetch", "all"], "write one of none, fault-around, streams"),
            (["demo", "--threads", "x"], "write a number"),
            (
                ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--fill=fast"],
                "the value 'fast' is invalid for '--fill <bytes/s>'"
            ),
            (["demo", "--memory", "-1"], "'-1' is invalid for '--memory <size>': it must not be negative"),
            (["demo", "--write", "-0.5"], "'-0.5' is invalid for '--write <0…1>': it must not be negative"),
            (["source", "--qmp", "/tmp/a", "--threads", "--seed", "1"], "'--threads <threads>' before '--seed'"),
            (["migrate", "--src", "/a", "--destination", "/b"], "'--src' (did you mean '--source'?)"),
            (["migrate", "--source", "/a", "--dest", "/b"], "'--dest' (did you mean '--destination'?)"),
            (["demo", "--mem", "1MiB"], "'--mem' (did you mean '--memory'?)"),
            (["migrate", "--source", "/a", "/b"], "'--destination <address>', and '/b' belongs to no option"),
            (
                ["demo", "--memory", "99TiB"],
                "a memory of 99 TiB is too large; give at most 1023 GiB, or at most 8 TiB with --no-ledger;"
            ),
            (["demo", "--memory", "99TiB", "--no-ledger"], "a memory of 99 TiB is too large; give at most 8 TiB;"),
            (
                ["demo", "--memory", "8TiB"],
                "can be moved; give at most 1023 GiB of memory, or leave the ledger out with --no-ledger;"
            ),
            (["demo", "--memory=-1GiB"], "a size must be more than 0"),
            (["demo", "--push-lanes", "0"], "--push-lanes must be 1 to 64"),
            (["source", "--qmp", "/tmp/a.sock", "--push-lanes", "65"], "--push-lanes must be 1 to 64"),
            (["demo", "--push-lanes", "x"], "write a number"),
            (["demo", "--push-lanes", "4", "--no-push"], "--push-lanes divides the push, and --no-push turns it off"),
            (["demo", "--max-bandwidth=-1"], "a limit must not be negative; write 0 for no limit"),
            (["demo", "--seed=-1"], "it must not be negative"), (["demo", "--timeout=-1s"], "must not be negative"),
            (["demo", "--think-time", "10"], "ns, us, ms or s; use 10us"),
            (["demo", "--think-time", "2h"], "use 7200s"),
            (["demo", "--think-time", "3601s"], "--think-time must be at most 3600s"),
            (["demo", "--threads", "0"], "--threads must be 1 to 1024"),
            (["demo", "--regions", "0"], "--regions must be 1 to 64"),
            (["demo", "--write", "2"], "--write must be 0 to 1"),
            (["demo", "--timeout", "0"], "--timeout must be more than 0, such as 60s"),
            (["source", "--qmp", "/tmp/a.sock", "--http", "9100"], "write 127.0.0.1:9100"),
            (["source", "--qmp", "/tmp/a.sock", "--http", "0.0.0.0:1"], "can see what happens here; use 127.0.0.1"),
            (["source", "--qmp", "/tmp/a.sock", "--http-host", "x"], "are for the live page: add --http"),
            (
                ["source", "--qmp", "/tmp/a.sock", "--http", "127.0.0.1:1", "--http-host", "a:1"],
                "'a:1' is not the name of a host; write it without a port"
            ),
            (["demo", "--memory", "1MiB", "--memory=2MiB"], "--memory is given twice, and takes one value"),
            (
                ["destination", "--qmp", "/tmp/b", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:1"],
                "--listen is given twice, and takes one value: drop one of the two"
            ),
            (["demo", "--device", "disk:nope"], "'disk:nope' is not a device: its path must be the absolute one"),
            (
                ["destination", "--qmp", "/tmp/b", "--listen", "no.such.host.invalid:7000"],
                "cannot resolve the host 'no.such.host.invalid': Name or service not known; check its name"
            ),
            (
                ["migrate", "--source", "/a", "--destination", "/b", "--uri", "http://10.0.0.2:7000"],
                "an address does not begin with 'http://'; write tcp:10.0.0.2:7000"
            ),
            (
                ["migrate", "--source", "/a", "--destination", "/b", "--uri", "ssh:host:7000"],
                "an address does not begin with 'ssh:'"
            ),
            (
                ["migrate", "--source", "/a", "--destination", "/b", "--uri", "fe80::1:7000"],
                "an IPv6 address must be in brackets"
            ),
            (["destination", "--qmp", "/tmp/b", "--listen", "7471"], "write 127.0.0.1:7471"),
            (["destination", "--qmp", "/tmp/b", "--listen", ":7471"], "write 127.0.0.1:7471"),
            (["destination", "--qmp", "/tmp/b", "--listen", "10.0.0.2"], "write 10.0.0.2:PORT"),
            (["attach", "--socket", "/tmp/u", "--from", "host"], "write host:PORT"),
            (
                ["attach", "--socket", "/tmp/u", "--socket", "/tmp/u", "--from", "127.0.0.1:1"],
                "--socket /tmp/u is given twice"
            ),
            (["attach", "--from", "127.0.0.1:1"], "missing expected argument '--socket <path>'"),
            (
                ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-owner", "root"],
                "write UID:GID, two numbers"
            ),
            (["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-mode", "9"], "such as 0660"),
            (
                ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--socket-mode", "0400"],
                "with this mode nobody could connect"
            ),
            (
                ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--max-guests-per-uid", "0"],
                "--max-guests-per-uid must be 1 to 65536"
            ),
            (["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--allow-uid", "x"], "such as 1234"),
            (["status", "7471"], "write 127.0.0.1:7471"), (["status", ""], "write the path of a Unix socket"),
            (["source", "--qmp", "/tmp/a", "--qmp", "unix:/tmp/a"], "--qmp unix:/tmp/a is given twice; drop one"),
            (["source", "/tmp/a.sock"], "'--qmp <address> ...', and '/tmp/a.sock' belongs to no option"),
            (["destination", "--qmp", "/tmp/b", "--listen", "0.0.0.0:7"], "use 127.0.0.1, or add --insecure"),
            (
                ["migrate", "--source", "/a", "--destination", "/b", "--uri", "tcp:127.0.0.1:0"],
                "means any free port and cannot be dialed"
            ),
            (
                ["recover", "--source", "/a", "--uri", "tcp:127.0.0.1:0"],
                "give the port at which the other side listens"
            ),
            (["demo", "--memory", "1\n2"], "write a number with its unit"),
            (["demo", "--max-bandwidth", "100Mbit"], "8 bits are a byte"),
            (["demo", "--page-size", "4096"], "write 4KiB, or 2MiB for huge pages"),
            (["demo", "--memory", "0"], "a size must be more than 0, such as 1GiB"),
            (["demo", "--memory", "1073741824"], "use 1GiB for that many bytes, or 1073741824MiB"),
            (["demo", "--memory", "1.5"], "use 1.5MiB;"),
            (["demo", "--memory", "1G"], "use 1GiB"), (["demo", "--memory", "1GB"], "use 1GiB"),
            (["demo", "--memory", "512m"], "use 512MiB"), (["demo", "--memory", "1024"], "use 1024MiB;"),
            (["demo", "--page-size", "4K"], "write 4KiB"), (["demo", "--max-bandwidth", "100M"], "use 100MiB"),
            (["bench", "--memory", "2.5g"], "use 2.5GiB"), (["bench", "--large", "lots"], "such as 1GiB"),
            (["demo", "--memory", "0B"], "more than 0"), (["demo", "--memory", "7parsecs"], "such as 1GiB"),
            (["source", "--qmp", "/tmp/a.sock", "--peer-timeout", "0"], "--peer-timeout must be at least 100ms"),
            (["source", "--qmp", "/tmp/a.sock", "--poll", "11ms"], "--poll must be at most 10ms"),
            (["attach", "--socket", "/tmp/a.sock", "--from", "h:1", "--poll", "1s"], "--poll must be at most 10ms"),
            (["serve", "--snapshot", "/f", "--listen", "127.0.0.1:0", "--poll", "fast"], "--poll"),
            (["destination", "--qmp", "/tmp/b", "--poll", "-1us"], "--poll"),
            (["destination", "--qmp", "/tmp/b", "--peer-timeout", "99ms"], "--peer-timeout must be at least 100ms"),
            (
                ["serve", "--snapshot", "/tmp/vm.mem", "--listen", "127.0.0.1:0", "--peer-timeout", "0"],
                "within 0 no peer can reliably answer a ping"
            ),
            (
                ["migrate", "--source", "/a", "--destination", "/b", "--uri", "tcp:0.0.0.0:7000"],
                "give the destination's own: tcp:HOST:7000"
            ),
            (["migrate", "--source", "/a", "--destination", "/b", "--uri", "*:7"], "tcp:HOST:7"),
            (["recover", "--source", "/a", "--uri", "tcp:[::]:7000"], "give the destination's own: tcp:HOST:7000"),
            (
                ["destination", "--qmp", "/tmp/b.sock", "--listen", "127.0.0.1:99999"],
                "a port is a number from 0 to 65535"
            ),
            (
                ["destination", "--qmp", "/tmp/b", "--allow-disk", ""],
                "--allow-disk: '' is not the absolute path of a folder"
            ),
            (
                ["destination", "--qmp", "/tmp/b", "--allow-disk", "disks"],
                "--allow-disk: 'disks' is not the absolute path of a folder"
            ),
            (
                ["destination", "--qmp", "/tmp/b", "--allow-hook", ""],
                "--allow-hook: '' is not the absolute path of a program"
            ),
            (
                ["destination", "--qmp", "/tmp/b", "--allow-hook", "./hook"],
                "--allow-hook: './hook' is not the absolute path of a program"
            ),
            (["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:abc"], "a port is a number from 0 to 65535"),
            (
                ["attach", "--socket", "/tmp/u", "--from", "127.0.0.1:1", "--window", "5s"],
                "--window is how long pages are recorded: add --record"
            ),
            (
                [
                    "destination", "--qmp", "/tmp/b.sock", "--guest", "firecracker:/run/vm.sock", "--serial",
                    "/dev/null",
                ],
                "--serial is for guests of --workload kvm"
            ),
            (
                ["destination", "--qmp", "/tmp/b.sock", "--attach", "/tmp/w.sock", "--allow-hook", "/bin/true"],
                "--allow-hook and --allow-disk are for built-in workloads"
            ),
            (
                ["source", "--qmp", "/tmp/a.sock", "--guest", "firecracker:/run/vm.sock", "--allow-disk", "/srv"],
                "--allow-hook and --allow-disk are for built-in workloads"
            ),
            (
                ["source", "--qmp", "/tmp/a.sock", "--http", "unix:/tmp/h", "--http-host", "a"],
                "--http-host is for a live page at a port"
            ),
        ]
    )
    func forms(arguments: [String], words: String) throws {
        let finished = try Executable.run(Executable.pageferry, arguments)
        expectOneLine(finished, status: 2, holding: words)
        #expect(finished.errors.split(separator: "\n").count == 1, "\(finished)")
    }

    @Test("an address without a colon is the path of a control socket", arguments: ["none.sock", "none", "no/sock"])
    func relativePath(path: String) throws {
        let finished = try Executable.pageferry("status", path)
        expectOneLine(finished, status: 1, holding: "cannot connect to unix:\(path): No such file or directory")
    }

    @Test("the version is told by the command line, the log and QMP alike", .timeLimit(.minutes(1)))
    func version() throws {
        let finished = try Executable.pageferry("--version")
        #expect(finished.status == 0 && finished.errors.isEmpty, "\(finished)")
        let line = finished.output.trimmingCharacters(in: .newlines)
        let workspace = try Workspace()
        let agent = try AgentProcess.destination(in: workspace)
        defer { agent.end() }
        _ = try agent.running.errorLine(holding: line)
        let name = try #require(line.split(separator: ",").first)
        #expect(try agent.qmp("query-version").contains("\"package\":\"\(name)\""))
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
        // No user may open the device, nor the system call while vm.unprivileged_userfaultfd is 0.
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

import Foundation
import LinuxSystem
import OwnThread
import PageProtocol
import TestProcess
import Testing

/// Text of peers and programs on its way to the log and the terminal.
@Suite("Text from outside", .ownThread, .timeLimit(.minutes(3)))
struct TextFromOutsideTests {
    /// Checks that every line is Pageferry's own, and that no control character reaches a terminal.
    private func expectHarmless(_ text: String, forged: String = "forged") {
        #expect(!text.unicodeScalars.contains { $0.value < 0x20 && $0 != "\n" || (0x7f...0x9f).contains($0.value) })
        #expect(!text.split(separator: "\n").contains { $0.hasPrefix(forged) }, "\(text)")
    }

    @Test("of another agent is escaped, in its report and in its errors")
    func agent() throws {
        let workspace = try Workspace()
        let nasty = #"a\n\u001b[2Jforged\u009b\u202e"#
        let report = """
            {"instance":"","states":["none"],"runsHere":false,"ended":"\(nasty)","holdsWorkload":true,"pageSize":4096,\
            "memoryBytes":4096,"workload":"\(nasty)","operations":1,"total":0,"error":"\(nasty)"}
            """
        for options in [[], ["--json"]] {
            let agent = try LyingAgent(in: workspace, answering: report)
            defer { agent.end() }
            let finished = try Executable.run(Executable.pageferry, ["status", agent.socket] + options)
            #expect(finished.status == 0, "\(finished)")
            expectHarmless(finished.output)
            #expect(finished.output.split(separator: "\n").count == 1)
            #expect(finished.output.contains(options.isEmpty ? "\\u{1b}[2Jforged" : "\\u001b[2Jforged"), "\(finished)")
            #expect(!finished.output.contains("\u{202e}"))
        }
        let agent = try LyingAgent(
            in: workspace,
            answering: "{\"class\":\"GenericError\",\"desc\":\"\(nasty)\"}",
            as: "error"
        )
        defer { agent.end() }
        for command in ["status", "cont", "cancel"] {
            let finished = try Executable.pageferry(command, agent.socket)
            #expect(finished.status == 1)
            expectHarmless(finished.errors)
            #expect(finished.errors.split(separator: "\n").count == 1, "\(finished)")
        }
    }

    @Test("of a hook is escaped")
    func hook() throws {
        let workspace = try Workspace()
        let hook = workspace.file("hook")
        let script = #"printf 'a\033[2Jforged\r\302\233x' >&2; exit 1"#
        // Another process writes the file: a process that is being started beside this test could otherwise hold it open
        // for writing, and then it cannot be run.
        let text = "#!/bin/sh\n\(script)\n"
        let writing = #"printf %s "$1" > "$2"; chmod 700 "$2""#
        let written = try Executable.run("/bin/sh", ["-c", writing, "sh", text, hook])
        #expect(written.status == 0, "\(written)")
        let finished = try Executable.pageferry(
            "source",
            "--qmp",
            workspace.file("a.sock"),
            "--memory",
            "4MiB",
            "--device",
            "hook:\(hook)"
        )
        #expect(finished.status == 1, "\(finished)")
        expectHarmless(finished.errors)
        #expect(finished.errors.contains("a\\u{1b}[2Jforged\\r\\u{9b}x"), "\(finished)")
    }

    @Test("of Firecracker is escaped, and values that no microVM can have are refused in a line")
    func firecracker() throws {
        let workspace = try Workspace()
        func run(_ firecracker: LyingFirecracker) throws -> Finished {
            try Executable.pageferry(
                "source",
                "--qmp",
                workspace.file("a.sock"),
                "--guest",
                "firecracker:\(firecracker.socket)"
            )
        }
        do {
            let firecracker = try LyingFirecracker(in: workspace, fault: #""a\n\u001b[2Jforged""#)
            defer { firecracker.end() }
            let finished = try run(firecracker)
            #expect(finished.status == 1, "\(finished)")
            expectHarmless(finished.errors)
            #expect(finished.errors.contains("\\u{1b}[2Jforged"), "\(finished)")
        }
        for memory in ["-1", "8796093022208", "9223372036854775807", "0", "1.5", "null", "1e30", "\"128\""] {
            let firecracker = try LyingFirecracker(in: workspace, memory: memory)
            defer { firecracker.end() }
            let finished = try run(firecracker)
            #expect(finished.status == 1, "\(memory): \(finished)")
            #expect(finished.errors.split(separator: "\n").count == 1, "\(memory): \(finished)")
        }
    }

    @Test("of an attached process is escaped")
    func attached() throws {
        let workspace = try Workspace()
        let attach = workspace.file("attach.sock")
        let source = try AgentProcess.source(in: workspace, "--memory", "1MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0", "--attach", attach)
        defer { destination.end() }
        let socket = try StreamSocket(connectingTo: .unix(path: attach))
        let region = try MemoryRegion(name: "memory", pageCount: 256)
        let userfaultfd = try Userfaultfd()
        try userfaultfd.register(region.range)
        var handOff: [UInt8] = []
        func append(_ value: some FixedWidthInteger) { withUnsafeBytes(of: value.littleEndian) { handOff += $0 } }
        append(UInt32(0x4f48_4750))
        append(UInt16(1))
        append(UInt16(1))
        append(region.range.address)
        append(region.range.byteCount)
        append(UInt32(4096))
        append(UInt32(0))
        try socket.send(handOff, with: userfaultfd)
        let answering = try JoinedThread(name: "attached") { [socket = SharedSocket(socket)] in
            func take(_ count: Int) -> [UInt8]? {
                var bytes = [UInt8](repeating: 0, count: count)
                let received = try? bytes.withUnsafeMutableBytes { try socket.stream.receive(exactly: $0) }
                return received == count ? bytes : nil
            }
            while let header = take(8) {
                let length = header.withUnsafeBytes { Int($0.load(fromByteOffset: 4, as: UInt32.self)) }
                guard take(length) != nil else { return }
                guard header[0] == 3 else { continue }
                let reason = Array("a\n\u{1b}[2Jforged".utf8)
                try? socket.stream.send([2, 1, 0, 0, UInt8(reason.count), 0, 0, 0] + reason)
            }
        }
        let migrated = try Executable.migrate(source, destination)
        #expect(migrated.status == 1, "\(migrated)")
        expectHarmless(migrated.errors + migrated.output)
        #expect(migrated.errors.contains("[2Jforged"), "\(migrated)")
        destination.end()
        expectHarmless(destination.running.errorText)
        answering.join()
    }

    /// How many lines an agent has written, and how many it has only counted.
    private func lines(_ text: String) -> (written: Int, counted: Int) {
        let lines = text.split(separator: "\n")
        let counted = lines.compactMap { line -> Int? in
            guard let end = line.range(of: " more like this") else { return nil }
            return line[..<end.lowerBound].split(separator: " ").last.flatMap { Int($0) }
        }
        return (lines.count, counted.reduce(0, +))
    }

    @Test("from 10 000 refused connections fills a bounded log, and the rest is counted")
    func refusedConnections() throws {
        let workspace = try Workspace()
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let line = try destination.running.line(holding: "listening at ")
        let address = try SocketAddress(String(line.split(separator: " ").last ?? ""))
        let begin = MonotonicClock.now()
        for _ in 0..<10_000 {
            let socket = try StreamSocket(connectingTo: address)
            try? socket.send(Array("nonsense".utf8))
        }
        _ = try destination.running.errorLine(holding: "more like this: refused a connection")
        kill(destination.running.pid, SIGTERM)
        let finished = try destination.running.finish()
        let seconds = Int((MonotonicClock.now() - begin) / 1_000_000_000) + 1
        let (written, counted) = lines(finished.errors)
        // Two places in the code refuse connections, and each reports its count once a second.
        #expect(written <= 2 * (20 + 7 * seconds), "\(written) lines in \(seconds) s")
        #expect(written + counted >= 9000, "\(written) lines, \(counted) counted")
        expectHarmless(finished.errors)
    }
}

import Foundation
import Glibc
import LinuxSystem
import Testing

@Suite("What cannot be printed", .timeLimit(.minutes(2)))
struct LostOutputTests {
    /// Runs `pageferry` with its standard output going where the shell says.
    private func run(to output: String, _ arguments: [String]) throws -> Finished {
        let words = [Executable.pageferry] + arguments
        let line = words.map { "'\($0)'" }.joined(separator: " ")
        return try Executable.run("/bin/bash", ["-c", "exec \(line) \(output)"])
    }

    private func expectLost(_ finished: Finished, _ reason: String) {
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.errors == "pageferry: cannot write to standard output: \(reason)\n", "\(finished)")
    }

    @Test(
        "is said on one line, and the exit status is 1",
        arguments: [["probe"], ["probe", "--json"], ["--help"], ["demo", "--memory", "4MiB"]]
    )
    func full(arguments: [String]) throws {
        expectLost(try run(to: ">/dev/full", arguments), "No space left on device")
    }

    @Test("is said where standard output is closed")
    func closed() throws {
        expectLost(try run(to: ">&-", ["demo", "--memory", "4MiB", "--json"]), "No space left on device")
    }

    @Test("is said where nobody reads any more")
    func unread() throws {
        let finished = try Executable.run(
            "/bin/bash",
            ["-c", "set -o pipefail; '\(Executable.pageferry)' demo --memory 4MiB --json | true"]
        )
        expectLost(finished, "Broken pipe")
    }

    @Test("delays the exit of a service after an error by a moment at most", arguments: ["text", "json"])
    func unreadErrors(format: String) throws {
        let workspace = try Workspace()
        let snapshot = workspace.file("vm.mem")
        try Data(repeating: 1, count: 1 << 20).write(to: URL(fileURLWithPath: snapshot))
        let taken = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let address = "\(taken.address)".dropFirst("tcp:".count)
        // The pipe is full, and is not read.
        let program = """
            import os, subprocess, sys
            end, writer = os.pipe()
            os.set_blocking(writer, False)
            try:
                while True: os.write(writer, b"x" * 4096)
            except BlockingIOError:
                os.set_blocking(writer, True)
            print(subprocess.run(sys.argv[1:], stderr=writer, timeout=10).returncode)
            """
        let command = ["serve", "--snapshot", snapshot, "--listen", "\(address)", "--log-format", format]
        let finished = try Executable.run("/usr/bin/python3", ["-c", program, Executable.pageferry] + command)
        #expect(finished.output == "1\n", "\(finished)")
    }

    @Test("keeps no command from its work")
    func work() throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace)
        defer { destination.end() }
        let agents = ["--source", source.socket, "--destination", destination.socket]
        expectLost(try run(to: ">/dev/full", ["migrate"] + agents), "No space left on device")
        #expect(try destination.qmp("query-status").contains("\"running\":true"))
        expectLost(
            try run(to: ">/dev/full", ["status", source.socket, destination.socket]),
            "No space left on device"
        )
    }

    @Test("keeps no agent from serving, which says so at its end")
    func agent() throws {
        let workspace = try Workspace()
        let socket = workspace.file("a.sock")
        let line = "exec '\(Executable.pageferry)' source --qmp \(socket) --memory 4MiB >/dev/full"
        let agent = try Running("/bin/bash", ["-c", line])
        defer { agent.end() }
        _ = try agent.errorLine(holding: "cannot write to standard output")
        #expect(try Executable.pageferry("status", socket).output.contains("random runs here"))
        kill(agent.pid, SIGTERM)
        #expect(try agent.finish().status == 1)
    }

    @Test("is told before anything is measured, where it is a file of distributions")
    func distributions() throws {
        let finished = try Executable.pageferry("bench", "--hgrm", "/nowhere/at/all.hgrm", seconds: 20)
        #expect(finished.status == 1, "\(finished)")
        #expect(finished.output.isEmpty, "\(finished)")
        let lines = finished.errors.split(separator: "\n")
        #expect(lines.count == 1, "\(finished)")
        #expect(lines.first?.contains("/nowhere/at") == true, "\(finished)")
    }
}

import Foundation
import Glibc
import Testing

@Suite("A command that is told to exit", .timeLimit(.minutes(2)))
struct EndSignalTests {
    /// The signals that end every command.
    private static let signals = [SIGINT, SIGTERM]

    /// Waits until a condition holds.
    private func wait(_ what: String, seconds: Double = 30, _ condition: () throws -> Bool) throws {
        let deadline = Date(timeIntervalSinceNow: seconds)
        while try !condition() {
            guard Date() < deadline else { throw TestFailure("never: \(what)") }
            usleep(2000)
        }
    }

    /// The arguments of a process's children.
    private func children(of pid: Int32) -> [[String]] {
        let path = "/proc/\(pid)/task"
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        let numbers = threads.flatMap { thread in
            ((try? String(contentsOfFile: "\(path)/\(thread)/children", encoding: .utf8)) ?? "").split(separator: " ")
        }
        return numbers.map { number in
            let line = FileManager.default.contents(atPath: "/proc/\(number)/cmdline") ?? Data()
            return line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        }
    }

    @Test("leaves no folder behind, even in the middle of a demo", arguments: signals + [SIGHUP])
    func demo(signal: Int32) throws {
        let demo = try Running(Executable.pageferry, ["demo", "--memory", "64MiB", "--max-bandwidth", "1MiB"])
        defer { demo.end() }
        var socket = ""
        try wait("a control socket of the demo's source") {
            let source = children(of: demo.pid).first { $0.contains("source") } ?? []
            guard let index = source.firstIndex(of: "--qmp") else { return false }
            socket = source[index + 1]
            return FileManager.default.fileExists(atPath: socket)
        }
        let folder = URL(fileURLWithPath: socket).deletingLastPathComponent().path
        #expect(folder.hasPrefix("/tmp/pageferry-"))
        kill(demo.pid, signal)
        let finished = try demo.finish()
        #expect(finished.status == signal, "\(finished)")
        #expect(!FileManager.default.fileExists(atPath: folder))
    }

    @Test("leaves no socket behind, however many signals it gets", arguments: signals, [1, 2])
    func agent(signal: Int32, times: Int) throws {
        let workspace = try Workspace()
        let attach = workspace.file("attach.sock")
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0", "--attach", attach)
        defer { destination.end() }
        #expect(FileManager.default.fileExists(atPath: attach))
        for _ in 0..<times { kill(destination.running.pid, signal) }
        _ = try destination.running.finish()
        #expect(!FileManager.default.fileExists(atPath: attach))
        #expect(!FileManager.default.fileExists(atPath: destination.socket))
    }

    @Test("says that it exits at once if it is told twice")
    func twice() throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, "--memory", "64MiB", "--max-bandwidth", "64KiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        #expect(try Executable.migrate(source, destination, "--detach").status == 0)
        kill(source.running.pid, SIGINT)
        _ = try source.running.errorLine(holding: "signal it again to exit at once")
        kill(source.running.pid, SIGINT)
        let finished = try source.running.finish()
        #expect(finished.status == 1 && finished.errors.contains("signalled twice, so this agent exits at once"))
    }

    @Test("leaves no socket behind if it serves a snapshot or guests", arguments: signals)
    func services(signal: Int32) throws {
        let workspace = try Workspace()
        let (snapshot, served) = (workspace.file("vm.mem"), workspace.file("served.sock"))
        try Data(repeating: 1, count: 1 << 20).write(to: URL(fileURLWithPath: snapshot))
        let serve = try Running(Executable.pageferry, ["serve", "--snapshot", snapshot, "--listen", "unix:\(served)"])
        defer { serve.end() }
        _ = try serve.line(holding: "ready")
        let socket = workspace.file("guests.sock")
        let attach = try Running(Executable.pageferry, ["attach", "--socket", socket, "--from", "unix:\(served)"])
        defer { attach.end() }
        _ = try attach.line(holding: "ready")
        for running in [attach, serve] {
            kill(running.pid, signal)
            #expect(try running.finish().status == 0)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: workspace.path) == ["vm.mem"])
    }

    @Test("stays until the migration that needs it has ended", arguments: signals)
    func needed(signal: Int32) throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB", "--max-bandwidth", "1MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace)
        defer { destination.end() }
        let migrating = try Running(
            Executable.pageferry,
            ["migrate", "--source", source.socket, "--destination", destination.socket, "--json"]
        )
        defer { migrating.end() }
        // The destination starts the workload after the source has entered this state.
        for agent in [source, destination] {
            try wait("postcopy-active") { try agent.qmp("query-migrate").contains("postcopy-active") }
        }
        for agent in [source, destination] {
            kill(agent.running.pid, signal)
            _ = try agent.running.errorLine(holding: "a migration needs this agent")
        }
        _ = try source.qmp(
            "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"max-postcopy-bandwidth\":0}}"
        )
        for agent in [source, destination] {
            #expect(try agent.running.finish().status == 0)
            #expect(!FileManager.default.fileExists(atPath: agent.socket))
        }
    }

    @Test("continues if SIGHUP is ignored, as under nohup")
    func nohup() throws {
        let workspace = try Workspace()
        let sockets = [workspace.file("a.sock"), workspace.file("b.sock")]
        let options = ["--source", sockets[0], "--destination", sockets[1]]
        let source = try Running(Executable.pageferry, ["source", "--qmp", sockets[0], "--memory", "4MiB"])
        defer { source.end() }
        let destination = try Running(Executable.pageferry, ["destination", "--qmp", sockets[1], "--stopped"])
        defer { destination.end() }
        for agent in [source, destination] { _ = try agent.line(holding: "ready") }
        // A command that waits, which SIGHUP would end.
        let waiting = try Running("/usr/bin/env", ["nohup", Executable.pageferry, "migrate"] + options)
        defer { waiting.end() }
        _ = try waiting.errorLine(holding: "the migration is under way")
        kill(waiting.pid, SIGHUP)
        #expect(try Executable.pageferry("cont", sockets[1]).status == 0)
        #expect(try waiting.finish().status == 0)
    }
}

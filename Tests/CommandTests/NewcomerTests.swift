import Foundation
import LinuxSystem
import Testing

/// What somebody does who uses the program for the first time.
@Suite("A mistake of a new user")
struct NewcomerTests {
    private func expectLine(_ finished: Finished, status: Int32 = 1, _ words: String...) {
        #expect(finished.status == status && finished.output.isEmpty, "\(finished)")
        #expect(finished.errors.split(separator: "\n").count == 1, "\(finished)")
        for word in words { #expect(finished.errors.contains(word), "no '\(word)' in \(finished)") }
    }

    @Test(
        "with a file that is not there is answered with what to check or to make",
        .timeLimit(.minutes(1)),
        arguments: [
            (["serve", "--snapshot", "X", "--listen", "127.0.0.1:0"], "check the path"),
            (["source", "--qmp", "X/a.sock", "--memory", "1MiB"], "create its folder with mkdir, or check the path"),
            (["source", "--qmp", "Y", "--memory", "1MiB", "--device", "disk:X"], "check the path"),
            (["source", "--qmp", "Y", "--memory", "1MiB", "--device", "hook:X"], "check the path"),
            (["source", "--qmp", "Y", "--memory", "1MiB", "--workload", "kv", "--load", "X"], "check the path"),
            (["source", "--qmp", "Y", "--memory", "1MiB", "--lease", "X/vm"], "or create it: mkdir -p X"),
            (["lease", "X/vm"], "or create it: mkdir -p X"),
            (["destination", "--qmp", "Y", "--allow-disk", "X"], "or create it: mkdir -p X"),
            (["destination", "--qmp", "Y", "--allow-hook", "X"], "check the path of --allow-hook"),
            (["attach", "--socket", "Y", "--from", "127.0.0.1:1", "--prefetch", "X"], "check the path"),
            (["workingset", "X"], "check the path"),
            (["status", "X"], "check the path, and that the agent runs"),
        ]
    )
    func missing(arguments: [String], advice: String) throws {
        let workspace = try Workspace()
        func filled(_ text: String) -> String {
            text.replacing("X", with: workspace.file("none")).replacing("Y", with: workspace.file("y"))
        }
        let finished = try Executable.run(Executable.pageferry, arguments.map(filled), seconds: 20)
        expectLine(finished, workspace.file("none"), "No such file or directory; ", filled(advice))
    }

    @Test(
        "with a file, a folder or a port of another kind is answered with what to give",
        .timeLimit(.minutes(1)),
        arguments: [
            (["serve", "--snapshot", "FILE", "--listen", "127.0.0.1:0"], "give the file of a guest's memory"),
            (["serve", "--snapshot", "FOLDER", "--listen", "127.0.0.1:0"], "give a regular file"),
            (["workingset", "FILE"], "give a file of pageferry attach --record"),
            (
                ["attach", "--socket", "Y", "--from", "127.0.0.1:1", "--prefetch", "LARGE"],
                "it is no record of a working set: it is larger than any; give a file of pageferry attach --record"
            ),
            (["destination", "--qmp", "Y", "--allow-hook", "FILE"], "chmod +x"),
            (["lease", "FOLDER/vm"], "check the path, and that the folder is mounted here"),
            (["lease", "FILE/vm"], "name a folder"),
            (["source", "--qmp", "FILE", "--memory", "1MiB"], "choose another path"),
            (["source", "--qmp", "Y", "--memory", "1MiB", "--device", "disk:FOLDER"], "give a regular file"),
            (["source", "--qmp", "Y", "--memory", "1MiB", "--device", "hook:FILE"], "chmod +x"),
            (
                ["source", "--qmp", "Y", "--workload", "kvm", "--memory", "4MiB", "--serial", "FILE/x"],
                "check the path"
            ),
            (
                ["migrate", "--guest", "firecracker:FILE", "--destination", "Y"],
                "start one there as this user, with --api-sock"
            ),
            (["status", "FILE"], "check the path, and that the agent runs"),
        ]
    )
    func wrongKind(arguments: [String], advice: String) throws {
        let workspace = try Workspace()
        try "text".write(toFile: workspace.file("file"), atomically: false, encoding: .utf8)
        // As large as a guest's memory, and without contents.
        try Data().write(to: URL(fileURLWithPath: workspace.file("large")))
        truncate(workspace.file("large"), 1 << 30)
        func filled(_ text: String) -> String {
            text.replacing("FILE", with: workspace.file("file")).replacing("LARGE", with: workspace.file("large"))
                .replacing("FOLDER", with: workspace.path)
                .replacing("Y", with: workspace.file("y"))
        }
        let finished = try Executable.run(Executable.pageferry, arguments.map(filled), seconds: 20)
        expectLine(finished, workspace.path, advice)
    }

    @Test("of naming another program's port as an agent is answered with what to check", .timeLimit(.minutes(1)))
    func otherProgram() throws {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let port = listener.address.description
        expectLine(try Executable.pageferry("status", port), "check that an agent is controlled there, by --qmp")
    }

    @Test("of naming a port at which no snapshot is served is answered with a warning", .timeLimit(.minutes(1)))
    func unserved() throws {
        let workspace = try Workspace()
        let closed = try { try Listener(at: .tcp(host: "127.0.0.1", port: 0)).address }()
        let attach = try Running(
            Executable.pageferry,
            ["attach", "--socket", workspace.file("u.sock"), "--from", String(closed.description.dropFirst(4))]
        )
        defer { attach.end() }
        _ = try attach.errorLine(holding: "warning: cannot connect to \(closed): Connection refused; guests wait")
        _ = try attach.line(holding: "ready")
    }

    @Test("with the order of agents and commands is answered with what to type", .timeLimit(.minutes(2)))
    func order() throws {
        let (workspace, second) = (try Workspace(), try Workspace())
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB")
        defer { source.end() }
        let other = try AgentProcess.source(in: second, "--memory", "16MiB")
        defer { other.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let (a, b) = (source.socket, destination.socket)
        expectLine(
            try Executable.migrate(destination, source),
            "this agent holds a workload and takes no other",
            "pageferry migrate --source unix:\(a) --destination unix:\(b)"
        )
        expectLine(try Executable.migrate(source, other), "unix:\(a) and unix:\(other.socket) have a workload each")
        expectLine(
            try Executable.pageferry("recover", "--source", a, "--uri", "tcp:127.0.0.1:1"),
            "look again with pageferry status"
        )
        expectLine(try Executable.pageferry("cancel", a), status: 0, "there is nothing to cancel")
        expectLine(try Executable.pageferry("cancel", a, "--workload-is-lost"), "cancel at unix:\(a): no migration is")
        let moved = try Executable.migrate(source, destination)
        #expect(moved.status == 0, "\(moved)")
        expectLine(
            try Executable.pageferry("cancel", a),
            "the workload has started on the destination; to move it back: ",
            "pageferry migrate --source DESTINATION --destination unix:\(a)"
        )
    }

    @Test("of waiting for a slow migration ends with what goes on, and is told of it before", .timeLimit(.minutes(2)))
    func interrupted() throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, "--memory", "64MiB", "--max-bandwidth", "64KiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0", "--stopped")
        defer { destination.end() }
        let (a, b) = (source.socket, destination.socket)
        let migrating = try Running(Executable.pageferry, ["migrate", "--source", a, "--destination", b])
        defer { migrating.end() }
        _ = try migrating.errorLine(
            holding: "under way: postcopy-active at the source, postcopy-device at the destination"
        )
        let started = try Executable.pageferry("cont", b)
        #expect(started.status == 0, "\(started)")
        _ = try migrating.errorLine(
            holding: "under way: postcopy-active at the source, postcopy-active at the destination"
        )
        kill(migrating.pid, SIGINT)
        let finished = try migrating.finish()
        let last = try #require(finished.errors.split(separator: "\n").last)
        #expect(last.hasPrefix("pageferry: the agents continue the migration: "))
        #expect(last.contains("follow it with pageferry status unix:\(a) unix:\(b)"))
        #expect(last.contains("end it with pageferry cancel unix:\(a) unless"))
        #expect(finished.errors.split(separator: "\n").count { $0.contains("is under way") } <= 4, "\(finished)")
        let back = try Executable.pageferry("migrate", "--source", b, "--destination", a)
        expectLine(
            back,
            "the workload is on its way from unix:\(a) to unix:\(b); wait until pageferry status unix:\(a)"
        )
        let early = try Executable.pageferry("cont", a)
        expectLine(early, "the migration decides where the workload runs: follow it with pageferry status unix:\(a)")
    }

    @Test("of a cont for which nothing has come yet is told what it waits for", .timeLimit(.minutes(1)))
    func earlyCont() throws {
        let workspace = try Workspace()
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { destination.end() }
        let waiting = try Running(Executable.pageferry, ["cont", destination.socket])
        defer { waiting.end() }
        _ = try waiting.errorLine(holding: "cont waits: no source has connected to unix:\(destination.socket) yet")
        kill(waiting.pid, SIGINT)
        let finished = try waiting.finish()
        #expect(finished.errors.contains("continues: follow it with pageferry status"), "\(finished)")
    }
}

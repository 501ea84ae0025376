import FirecrackerRig
import Foundation
import Testing

/// Options that come from the configuration file and the environment.
@Suite("The configuration", .timeLimit(.minutes(2)))
struct ConfigurationTests {
    private struct Line: Decodable {
        let option: String
        let values: [String]
        let source: String
    }

    /// Runs pageferry with variables such as `PAGEFERRY_GIVE_UP=5s`.
    private func run(_ variables: [String] = [], _ arguments: [String]) throws -> Finished {
        try Executable.run("/usr/bin/env", variables + [Executable.pageferry] + arguments)
    }

    /// The value of an option that is in force, and where it comes from.
    private func inForce(_ option: String, _ variables: [String], _ words: [String]) throws -> Line {
        let finished = try run(variables, ["config", "--json"] + words)
        let lines = try finished.output.split(separator: "\n").map {
            try JSONDecoder().decode(Line.self, from: Data($0.utf8))
        }
        return try #require(lines.first { $0.option == option }, "\(finished)")
    }

    private func file(_ text: String, in workspace: Workspace) throws -> String {
        let path = workspace.file("config.yaml")
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        return path
    }

    @Test("is the file's, unless the environment has the option, unless the command line has it")
    func order() throws {
        let workspace = try Workspace()
        let path = try file(
            """
            all:
              give-up: 1s
              log-level: info
            attach:
              give-up: 2s
              from: 10.0.0.1:7200
            """,
            in: workspace
        )
        let words = ["attach", "--config", path, "--socket", "/run/u.sock"]
        let steps: [(variables: [String], words: [String], value: String, source: String)] = [
            ([], [], "2s", "\(path):5, attach.give-up"),
            (["PAGEFERRY_GIVE_UP=3s"], [], "3s", "the environment, PAGEFERRY_GIVE_UP"),
            (
                ["PAGEFERRY_GIVE_UP=3s", "PAGEFERRY_ATTACH_GIVE_UP=4s"], [], "4s",
                "the environment, PAGEFERRY_ATTACH_GIVE_UP"
            ),
            (["PAGEFERRY_ATTACH_GIVE_UP=4s"], ["--give-up", "5s"], "5s", "the command line"),
            (["PAGEFERRY_ATTACH_GIVE_UP=4s"], ["--give-up=6s"], "6s", "the command line"),
            (["PAGEFERRY_ATTACH_GIVE_UP="], [], "2s", "\(path):5, attach.give-up"),
        ]
        for step in steps {
            let line = try inForce("give-up", step.variables, words + step.words)
            #expect(line.values == [step.value] && line.source == step.source, "\(line)")
        }
        #expect(try inForce("log-level", [], words).source == "\(path):3, all.log-level")
        #expect(try inForce("max-guests", [], words).source == "default")
        #expect(try inForce("give-up", ["PAGEFERRY_CONFIG=\(path)"], ["attach"]).values == ["2s"])
        #expect(try inForce("give-up", ["PAGEFERRY_CONFIG=\(path)"], ["attach", "--config", "none"]).values.isEmpty)
    }

    @Test("replaces a list as a whole")
    func lists() throws {
        let workspace = try Workspace()
        let path = try file("attach:\n  socket: [/run/a.sock, /run/b.sock]\n  allow-uid: 7\n", in: workspace)
        let words = ["attach", "--config", path, "--from", "10.0.0.1:7200"]
        #expect(try inForce("socket", [], words).values == ["/run/a.sock", "/run/b.sock"])
        #expect(try inForce("allow-uid", [], words).values == ["7"])
        #expect(try inForce("socket", ["PAGEFERRY_SOCKET=/c, /d"], words).values == ["/c", "/d"])
        #expect(try inForce("socket", [], words + ["--socket", "/e"]).values == ["/e"])
    }

    @Test("gives flags, flags with an opposite, and options whose value may be missing")
    func flags() throws {
        let workspace = try Workspace()
        let path = try file(
            "all:\n  log-times: false\nattach:\n  fill: true\n  socket: /s\n  from: unix:/f\nserve:\n  insecure: true\n",
            in: workspace
        )
        let serve = ["serve", "--config", path, "--snapshot", "/vm", "--listen", "10.0.0.1:0"]
        #expect(try inForce("log-times", [], serve).values == ["false"])
        #expect(try inForce("insecure", [], serve).values == ["true"])
        #expect(try run([], ["config"] + serve).status == 0)
        #expect(try run(["PAGEFERRY_SERVE_INSECURE=false"], ["config"] + serve).status == 2)
        #expect(try inForce("log-times", [], serve + ["--log-times"]).values == ["true"])
        let attach = ["attach", "--config", path]
        #expect(try run([], ["config"] + attach).status == 0)
        #expect(try run([], ["config", "--help"]).output.contains("USAGE: pageferry config"))
        #expect(try run(["PAGEFERRY_FILL=50MiB"], ["config"] + attach).status == 0)
        let refused = try run(["PAGEFERRY_FILL=fast"], attach)
        #expect(refused.status == 2)
        #expect(refused.errors.contains("write a number with its unit"), "\(refused)")
    }

    @Test(
        "of a file with a mistake is refused with the line, the key, and what is allowed",
        arguments: [
            (
                "atach:\n  give-up: 1s\n",
                ":1: unknown section 'atach' (did you mean 'attach'?); the sections are all, attach,"
            ),
            (
                "attach:\n  givup: 1s\n",
                ":2: unknown key 'givup' in 'attach' (did you mean 'give-up'?); allowed are allow-uid,"
            ),
            ("all:\n  nonsense: 1\n", ":2: unknown key 'nonsense' in 'all'"),
            ("attach:\n\n  no-log-times: true\n", ":3: unknown key 'no-log-times' in 'attach' (write 'log-times: f"),
            ("attach:\n  --from: x\n", ":2: unknown key '--from' in 'attach' (write it without hyphens before it)"),
            ("attach:\n  config: /other\n", ":2: unknown key 'config' in 'attach'"),
            ("cancel:\n  destination-is-gone: true\n", ":2: unknown key 'destination-is-gone' in 'cancel'"),
            ("all:\n  workload-is-lost: true\n", ":2: unknown key 'workload-is-lost' in 'all'"),
            ("lease:\n  take: [/l, w]\n", ":2: unknown key 'take' in 'lease'"),
            ("attach: 7\n", ":1: 'attach' is a section and takes no value"),
            ("- attach\n", ":1: the file has no sections"),
            ("attach:\n  from: [a, b]\n", ":2: 'attach.from' takes one value, not a list"),
            ("attach:\n  from:\n    host: a\n", ":3: 'attach.from' takes one value, not further keys"),
            ("attach:\n  from:\n", ":2: 'attach.from' has no value; write one, or drop the key"),
            ("serve:\n  insecure: yes\n", ":2: 'serve.insecure' takes true or false, not 'yes'"),
            ("attach:\n  socket:\n    - a\n    - [b]\n", ":4: an element of 'attach.socket' takes one value, not a"),
            (
                "attach:\n  from: a:1\n  give-up: 1s\n  from: b:1\n",
                ":4: 'from' is given twice, first in line 2; drop one of the two"
            ),
            ("attach:\n  from: 'a\n", ":3: this is not YAML: "), ("attach:\n\tfrom: a\n", ":2: this is not YAML: "),
            ("attach:\n  from: a:1\n---\nserve:\n", ":3: this is not YAML: "),
        ]
    )
    func mistakes(text: String, words: String) throws {
        let workspace = try Workspace()
        let path = try file(text, in: workspace)
        // A mistake in the section of another command counts too.
        for command in [["attach", "--socket", "/s", "--from", "h:1"], ["status", "/run/a.sock"], ["config"]] {
            let finished = try run(["PAGEFERRY_CONFIG=\(path)"], command)
            #expect(finished.status == 2, "\(finished)")
            #expect(finished.errors.hasPrefix("error: \(path)\(words)"), "\(finished)")
            #expect(finished.errors.split(separator: "\n").count == 1, "\(finished)")
        }
        // Help is there all the same.
        #expect(try run(["PAGEFERRY_CONFIG=\(path)"], ["attach", "--help"]).status == 0)
    }

    @Test("with a wrong value is refused in the words of the option, with the value's place")
    func wrongValue() throws {
        let workspace = try Workspace()
        let path = try file("attach:\n  socket: /s\n  from: h:1\n  give-up: 2hours\n  record: /r\n", in: workspace)
        let wrong = try run([], ["attach", "--config", path])
        #expect(wrong.status == 2)
        #expect(wrong.errors.contains("use 7200s; --give-up is set by \(path):4, attach.give-up; see"), "\(wrong)")
        let variable = try run(["PAGEFERRY_ATTACH_GIVE_UP=soon"], ["attach", "--config", path])
        #expect(
            variable.errors.contains("--give-up is set by the environment, PAGEFERRY_ATTACH_GIVE_UP"),
            "\(variable)"
        )
        // An option of the command line that excludes one of the file.
        let excluded = try run([], ["attach", "--config", path, "--give-up", "5s", "--prefetch", "/p"])
        #expect(excluded.errors.contains("give --record, or --prefetch and --fill; --record is set by \(path):5"))
        let flag = try run(["PAGEFERRY_INSECURE=maybe"], ["serve", "--snapshot", "/f", "--listen", "127.0.0.1:0"])
        #expect(flag.errors.contains("PAGEFERRY_INSECURE takes true or false, not 'maybe'"), "\(flag)")
    }

    @Test("file that is named must be there, and is not read with none")
    func missing() throws {
        let finished = try run([], ["status", "/run/a.sock", "--config", "/no/such/config.yaml"])
        #expect(finished.status == 2 && finished.errors.contains("/no/such/config.yaml"), "\(finished)")
        let folder = try run(["PAGEFERRY_CONFIG=/tmp"], ["status", "/run/a.sock"])
        #expect(folder.status == 2 && folder.errors.contains("/tmp"), "\(folder)")
        let none = try run(["PAGEFERRY_CONFIG=none"], ["config"])
        #expect(none.status == 0 && none.output == "file: none\n", "\(none)")
    }

    @Test("is shown for every command, or for a command line that would be refused")
    func shown() throws {
        let workspace = try Workspace()
        let path = try file("attach:\n  from: h:1\ndemo:\n  memory: 64MiB\n", in: workspace)
        let all = try run(["PAGEFERRY_LOG_LEVEL=info"], ["config", "--config", path])
        #expect(all.status == 0)
        let lines = all.output.split(separator: "\n").map { $0.split(separator: " ").joined(separator: " ") }
        #expect(lines.first == "file: \(path)")
        #expect(lines.contains("attach from h:1 \(path):2, attach.from"), "\(all)")
        #expect(lines.contains("demo memory 64MiB \(path):4, demo.memory"), "\(all)")
        #expect(lines.contains("serve log-level info the environment, PAGEFERRY_LOG_LEVEL"), "\(all)")
        let refused = try run([], ["config", "attach", "--config", path])
        #expect(refused.status == 2)
        #expect(refused.output.contains("attach give-up"), "\(refused)")
        #expect(refused.errors.contains("missing expected argument '--socket <path>'"), "\(refused)")
        #expect(try run([], ["config", "child-agent"]).status == 2)
        #expect(try run([], ["config", "atach"]).errors.contains("did you mean 'attach'?"))
    }

    @Test("is read once: the processes that a command starts take no option from it")
    func children() throws {
        let workspace = try Workspace()
        let path = try file(
            "demo:\n  memory: 16MiB\n  json: true\nsource:\n  memory: 32MiB\ndestination:\n  stopped: true\n",
            in: workspace
        )
        let demo = try run(["PAGEFERRY_CONFIG=\(path)", "PAGEFERRY_SOURCE_THREADS=0"], ["demo"])
        #expect(demo.status == 0, "\(demo)")
        #expect(try Printed(demo.output).number("verify", "pages_checked") == 4096)
    }

    @Test("is read again on SIGHUP, which ends neither an agent nor a server")
    func hangUp() throws {
        let workspace = try Workspace()
        let path = try file("all:\n  log-level: error\n", in: workspace)
        let snapshot = workspace.file("vm.mem")
        try Data(repeating: 1, count: 1 << 20).write(to: URL(fileURLWithPath: snapshot))
        let commands = [
            ["serve", "--snapshot", snapshot, "--listen", "unix:\(workspace.file("s.sock"))"],
            ["destination", "--qmp", workspace.file("b.sock")],
        ]
        for command in commands {
            _ = try file("all:\n  log-level: error\n", in: workspace)
            let running = try Running(Executable.pageferry, command + ["--config", path])
            defer { running.end() }
            _ = try running.line(holding: "ready")
            #expect(!running.errorText.contains("pageferry \(command[0])"))
            _ = try file("all:\n  log-level: info\n  peer-timeout: 7s\n", in: workspace)
            kill(running.pid, SIGHUP)
            let line = try running.errorLine(holding: "SIGHUP: ")
            #expect(line.hasSuffix("the log level is info; restart for the changes of --peer-timeout"), "\(line)")
            _ = try file("all:\n  log-level: loud\n", in: workspace)
            kill(running.pid, SIGHUP)
            _ = try running.errorLine(holding: "'loud' is no log level, \(path):2, all.log-level: write one of trace")
            _ = try file("al:\n", in: workspace)
            kill(running.pid, SIGHUP)
            _ = try running.errorLine(holding: "SIGHUP: the configuration stays as it is: \(path):1: unknown section")
            kill(running.pid, SIGTERM)
            #expect(try running.finish().status == 0)
        }
    }

    @Test("has a log level on SIGHUP that the workers of guests take too")
    func workers() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let path = try file("attach:\n  log-level: error\n", in: site.workspace)
        let socket = site.workspace.file("u.sock")
        let handler = try Running(
            Executable.pageferry,
            [
                "attach", "--from", site.address, "--socket", socket, "--config", path, "--state",
                site.workspace.file("state"),
            ]
        )
        defer { handler.end() }
        _ = try handler.line(holding: "ready")
        // A guest that has all of its pages would have no worker.
        let guest = try site.restore(at: socket)
        #expect(try guest.perform(.workingSet) == 1)
        _ = try file("attach:\n  log-level: info\n", in: site.workspace)
        kill(handler.pid, SIGHUP)
        _ = try handler.errorLine(holding: "the log level is info")
        guest.end()
        // A line of the worker.
        _ = try handler.errorLine(holding: "stopped serving process")
        #expect(!handler.errorText.contains("has attached"))
    }
}

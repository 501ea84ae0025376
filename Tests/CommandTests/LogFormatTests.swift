import FirecrackerRig
import Foundation
import Testing

/// The log as JSON.
@Suite("A line of the log in JSON", .timeLimit(.minutes(2)))
struct LogFormatTests {
    /// The objects that a command has logged; fails if another line is among them.
    private func objects(_ text: String) throws -> [[String: String]] {
        try text.split(separator: "\n").map { try JSONDecoder().decode([String: String].self, from: Data($0.utf8)) }
    }

    @Test("names the guest, in the lines of the handler and of its worker, and again after a restart")
    func guest() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let socket = site.workspace.file("u.sock")
        let options = ["--socket", socket, "--state", site.workspace.file("state"), "--log-format", "json"]
        let handler = try site.run(Executable.pageferry, site.arguments(options))
        _ = try handler.line(holding: "ready")
        // A guest that has all of its pages would have no worker.
        let guest = try site.restore(at: socket)
        #expect(try guest.perform(.workingSet) == 1)
        kill(handler.pid, SIGKILL)
        _ = try? handler.finish()
        let next = try site.run(Executable.pageferry, site.arguments(options))
        _ = try next.line(holding: "ready")
        _ = try next.errorLine(holding: "was adopted")
        _ = try next.errorLine(holding: "serves process")
        guest.end()
        _ = try next.errorLine(holding: "stopped serving")
        let expected = [
            (handler.errorText, ["has attached", "serves process"]),
            (next.errorText, ["was adopted", "stopped serving"]),
        ]
        for (text, words) in expected {
            let lines = try objects(text)
            for word in words {
                let line = try #require(lines.first { $0["message"]?.contains(word) == true }, "\(text)")
                #expect(line["guest"] == "process \(guest.pid) at unix:\(socket)", "\(line)")
                #expect(line["process"] == "\(guest.pid)" && line["command"] == "attach", "\(line)")
                #expect(["info", "notice"].contains(line["level"]), "\(line)")
                #expect(line["time"]?.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/) != nil, "\(line)")
            }
        }
    }

    @Test("names the migration alike at both agents, and not before there is one")
    func migration() throws {
        let workspace = try Workspace()
        let json = ["--log-format", "json", "--log-level", "info"]
        let source = try AgentProcess.source(in: workspace, ["--memory", "4MiB"] + json)
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, json)
        defer { destination.end() }
        #expect(try Executable.migrate(source, destination).status == 0)
        _ = try source.running.errorLine(holding: "has completed after")
        _ = try destination.running.errorLine(holding: "has completed after")
        let identifiers = try [source, destination].map { agent in
            let lines = try objects(agent.running.errorText)
            let first = try #require(lines.first { $0["message"]?.hasPrefix("pageferry ") == true })
            #expect(first["migration"] == nil, "\(first)")
            let line = try #require(lines.first { $0["message"]?.contains("has completed after") == true })
            return try #require(line["migration"], "\(line)")
        }
        #expect(identifiers[0] == identifiers[1])
        #expect(identifiers[0].wholeMatch(of: /[0-9a-f]{32}/) != nil)
    }

    @Test("has the error with which a command exits, and what others have written stays inside of it")
    func last() throws {
        let workspace = try Workspace()
        let snapshot = workspace.file("vm\n\u{1b}[31m\"}.mem")
        let options = ["--listen", "unix:\(workspace.file("s.sock"))", "--log-format", "json"]
        let finished = try Executable.run(Executable.pageferry, ["serve", "--snapshot", snapshot] + options)
        #expect(finished.status == 1)
        let line = try #require(try objects(finished.errors).last)
        #expect(line["level"] == "critical" && line["message"]?.contains("vm\n\u{1b}[31m\"}.mem") == true, "\(line)")
        #expect(!finished.errors.contains("\u{1b}"))
        // An error of usage comes before there is a log.
        let wrong = try Executable.run(Executable.pageferry, ["serve", "--log-format", "xml"] + options.prefix(2))
        #expect(wrong.status == 2 && wrong.errors.hasPrefix("error: "), "\(wrong)")
    }
}

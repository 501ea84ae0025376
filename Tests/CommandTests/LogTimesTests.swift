import Foundation
import Glibc
import Testing

@Suite("A line that is logged", .timeLimit(.minutes(1)))
struct LogTimesTests {
    private static let time = #"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "#

    /// The warning of a destination that every user of the host can control.
    private func warning(_ command: String, _ arguments: [String]) throws -> String {
        let workspace = try Workspace()
        let options = ["destination", "--qmp", workspace.file("b.sock"), "--qmp", "tcp:127.0.0.1:0"]
        let agent = try Running(command, arguments + options)
        defer { agent.end() }
        return try agent.errorLine(holding: "pageferry destination: warning: ")
    }

    private func begins(_ line: String, with pattern: String) -> Bool {
        line.range(of: pattern, options: .regularExpression) != nil
    }

    @Test("begins with its time in UTC, unless it goes to a terminal")
    func file() throws {
        let line = try warning(Executable.pageferry, [])
        #expect(begins(line, with: LogTimesTests.time + "pageferry destination: warning: "), "\(line)")
        let format = Date.ISO8601FormatStyle(includingFractionalSeconds: true)
        let time = try format.parse(String(line.prefix(24)))
        #expect(abs(time.timeIntervalSinceNow) < 60)
    }

    @Test("has no time with --no-log-times")
    func off() throws {
        let workspace = try Workspace()
        let agent = try AgentProcess.destination(in: workspace, "--qmp", "tcp:127.0.0.1:0", "--no-log-times")
        defer { agent.end() }
        #expect(try agent.running.errorLine(holding: "warning: ").hasPrefix("pageferry destination: warning: "))
    }

    /// Runs an agent whose standard error is a terminal, and returns what it printed there.
    private func onTerminal(_ options: String) throws -> String {
        let workspace = try Workspace()
        let socket = workspace.file("b.sock")
        let agent = "exec '\(Executable.pageferry)' destination --qmp \(socket) --qmp tcp:127.0.0.1:0 \(options)"
        let running = try Running("/usr/bin/script", ["-q", "-c", agent, "/dev/null"])
        defer { running.end() }
        let deadline = Date(timeIntervalSinceNow: 30)
        while !running.outputText.contains("ready ") {
            guard Date() < deadline else { throw TestFailure("never ready: \(running.outputText)") }
            usleep(2000)
        }
        let text = running.outputText
        // The agent outlives its terminal.
        _ = try QMPLine(path: socket).execute("quit")
        _ = try running.finish()
        return text
    }

    @Test(
        "has its time on a terminal only with --log-times",
        .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/script"), "there is no script(1)")
    )
    func terminal() throws {
        #expect(try onTerminal("").hasPrefix("pageferry destination: "))
        #expect(begins(try onTerminal("--log-times"), with: LogTimesTests.time))
    }
}

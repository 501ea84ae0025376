import FirecrackerRig
import Foundation
import LinuxSystem
import Testing

@testable import pageferry

@Suite("The command top", .timeLimit(.minutes(2)))
struct TopTests {
    private static let hasTerminal = FileManager.default.isExecutableFile(atPath: "/usr/bin/script")

    private func page(of running: Running) throws -> String {
        let line = try running.line(holding: ", watched at http://")
        return try #require(line.components(separatedBy: ", watched at ").last)
    }

    @Test("prints agents, a handler with its guests and a server once without a terminal")
    func once() throws {
        let site = try RestoreSite(.standIn, "--http", "127.0.0.1:0")
        defer { site.end() }
        let guest = try site.restore()
        #expect(try guest.perform(.workingSet) == 1)
        let source = try AgentProcess.source(in: site.workspace, ["--memory", "4MiB", "--http", "127.0.0.1:0"])
        defer { source.end() }
        let pages = [try page(of: site.handler), try page(of: source.running)]
        // The worker counts what it has done within a second.
        let deadline = Date.now + 20
        var finished = try Executable.run(Executable.pageferry, ["top", source.socket] + pages)
        while Date.now < deadline, !finished.output.contains(/linked +[1-9][0-9]? %/) {
            finished = try Executable.run(Executable.pageferry, ["top", source.socket] + pages)
        }
        #expect(finished.status == 0 && finished.errors.isEmpty, "\(finished)")
        let lines = finished.output.split(separator: "\n").map(String.init)
        try #require(lines.count == 5, "\(finished)")
        #expect(lines[0].hasPrefix("ADDRESS"))
        #expect(lines[1].contains(/^unix:.* none +random runs here$/), "\(lines[1])")
        #expect(lines[2].contains("serves") && lines[2].hasSuffix("1 guest"))
        #expect(lines[3].contains("  \(guest.pid) ") && lines[3].contains(/linked +[1-9][0-9]? %/), "\(lines[3])")
        #expect(lines[4].hasPrefix("http:127.0.0.1:") && lines[4].hasSuffix("random runs here"))
    }

    @Test("names each address that does not answer, and exits with status 1")
    func silent() throws {
        let workspace = try Workspace()
        let missing = workspace.file("none.sock")
        let finished = try Executable.pageferry("top", missing, "http:127.0.0.1:1", "http://\(missing)")
        #expect(finished.status == 1, "\(finished)")
        let lines = finished.output.split(separator: "\n")
        try #require(lines.count == 4, "\(finished)")
        #expect(lines[1].contains("No such file or directory"), "\(finished)")
        #expect(lines[2].contains("cannot read the state at http:127.0.0.1:1: Connection refused"), "\(finished)")
        #expect(lines[3].hasSuffix("check that pageferry runs there"), "\(finished)")
    }

    @Test(
        "is redrawn on a terminal, and ends at q and at Ctrl-C",
        .enabled(if: hasTerminal),
        arguments: ["q", "\u{3}"]
    )
    func terminal(key: String) throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, "--memory", "4MiB")
        defer { source.end() }
        let watch = "stty cols 60 rows 10; TERM=xterm '\(Executable.pageferry)' top \(source.socket); echo status $?"
        // The key comes after the table was drawn at least twice.
        let shown = workspace.file("shown")
        let isDrawn = "[ $(grep -ao ADDRESS \(shown) | wc -l) -ge 2 ]"
        let keys = "until \(isDrawn); do sleep 0.1; done; printf '\(key == "q" ? "q" : "\\003")'; sleep 10"
        let finished = try Executable.run(
            "/bin/sh",
            ["-c", "(\(keys)) | timeout 60 script -q -f -E never -c \"\(watch)\" \(shown)"],
            seconds: 60
        )
        #expect(finished.output.contains("\u{1b}[?1049h") && finished.output.contains("\u{1b}[?1049l"), "\(finished)")
        #expect(finished.output.components(separatedBy: "ADDRESS").count >= 3, "\(finished)")
        #expect(finished.output.contains("status 0"), "\(finished)")
    }

    @Test("fits the width, with the end of a long path and the beginning of a long text")
    func width() {
        var row = TopLook.Row(
            name: "unix:/" + String(repeating: "x", count: 100) + "/end.sock",
            state: "postcopy-active"
        )
        row.pages = (999, 1000)
        row.waits = (12, 1_234_567)
        row.note = String(repeating: "n", count: 200)
        let look = TopLook(address: .http(.tcp(host: "h", port: 1)), rows: [row])
        for width in [1, 20, 60, 80, 200] {
            let lines = TopTable([look]).lines(width: width)
            #expect(lines.count == 2 && lines.allSatisfy { $0.count <= width })
        }
        let line = TopTable([look]).lines(width: 100)[1]
        #expect(line.contains("end.sock") && line.contains("99 %") && line.contains("1.23 s"), "\(line)")
    }
}

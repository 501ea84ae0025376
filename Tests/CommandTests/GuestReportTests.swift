import FirecrackerRig
import Foundation
import Testing

@Suite("The report of a restored guest", .timeLimit(.minutes(2)))
struct GuestReportTests {
    /// Waits until a handler has written this many reports, and returns the reports by the names of their folders.
    private func reports(in folder: String, _ count: Int) throws -> [(name: String, report: Printed)] {
        let deadline = Date.now + 30
        while Date.now < deadline {
            let names = try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
            // The page is written last.
            let files = names.map { "\(folder)/\($0)" }.filter {
                FileManager.default.fileExists(atPath: "\($0)/report.html")
            }
            if files.count == count {
                return try zip(names, files).map {
                    ($0, try Printed(String(contentsOfFile: "\($1)/report.json", encoding: .utf8)))
                }
            }
            usleep(20_000)
        }
        throw TestFailure("there are no \(count) reports in \(folder)")
    }

    @Test("is written into a folder of its own when the guest has all of its pages, and when it has ended")
    func ended() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let folder = site.workspace.file("reports")
        let handler = try site.startHandler(["--report", folder])
        let guest = try site.restore(at: handler.socket)
        // The guest lacks pages, so that its report waits for its end.
        #expect(try guest.perform(.workingSet) == 1)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == [])
        guest.end()
        let first = try #require(try reports(in: folder, 1).first)
        handler.end()
        #expect(first.name.contains(/^\d{4}-\d\d-\d\dT\d{6}\.\d{3}Z-\d+$/), "\(first.name)")
        #expect(first.name.hasSuffix("-\(guest.pid)"))
        #expect(try first.report.value("kind") == "restore")
        #expect(try first.report.value("result") == "completed")
        #expect(try first.report.value("runs_on") == "nobody")
        let total = try first.report.number("pages", "total")
        #expect(total == Double(RestoreSite.memoryBytes / 4096))
        let arrived = try first.report.number("pages", "demand") + first.report.number("pages", "prefetched")
        #expect(arrived > 0 && arrived <= total)
        let waits: [[Double]] = try first.report.value("histogram", "service")
        #expect(try waits.reduce(0) { $0 + $1[1] } == first.report.number("service_us", "count"))
        let page = try String(contentsOfFile: "\(folder)/\(first.name)/report.html", encoding: .utf8)
        #expect(page.contains(#""kind":"restore""#))
        let text = try String(contentsOfFile: "\(folder)/\(first.name)/service.hgrm", encoding: .utf8)
        #expect(text.contains("#[Mean"))

        let filling = try site.startHandler(["--report", folder, "--fill"])
        defer { filling.end() }
        let filled = try site.restore(at: filling.socket)
        let both = try reports(in: folder, 2)
        let last = try #require(both.first { $0.name != first.name }).report
        #expect(try last.value("runs_on") == "destination")
        #expect(try filled.perform(.pass) == 1)
    }

    @Test("says that the guest was lost")
    func lost() throws {
        let site = try RestoreSite(serverOf: .standIn)
        defer { site.end() }
        let folder = site.workspace.file("reports")
        let options = ["--report", folder, "--give-up", "1s", "--on-lost", "kill"]
        let handler = try site.startHandler(options)
        defer { handler.end() }
        let guest = try site.restore(at: handler.socket)
        #expect(try guest.perform(.workingSet) == 1)
        site.killServer()
        guest.send(.pass)
        let report = try #require(try reports(in: folder, 1).first).report
        #expect(try report.value("result") == "failed")
        let error: String = try report.value("error")
        #expect(error.contains("killed"))
    }

    @Test("is refused before a guest attaches if its folder cannot be made")
    func refused() throws {
        let workspace = try Workspace()
        let file = workspace.file("file")
        try Data().write(to: URL(filePath: file))
        let finished = try Executable.pageferry(
            "attach",
            "--socket",
            workspace.file("u.sock"),
            "--from",
            "127.0.0.1:1",
            "--report",
            "\(file)/reports",
            seconds: 20
        )
        #expect(finished.status == 1 && finished.errors.contains("--report"), "\(finished)")
    }
}

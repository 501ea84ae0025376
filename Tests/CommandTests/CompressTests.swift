import Foundation
import Testing

@Suite("Compressed pages")
struct CompressTests {
    private func expectCompressed(_ output: String, by codec: String) throws {
        let report = try Printed(output)
        #expect(try report.value("result") == "completed")
        #expect(try report.value("verify", "corrupt") == 0)
        #expect(try report.value("compression", "setting") == codec)
        #expect(try report.value("compression", "codec") == codec)
        let (before, after) = (
            try report.number("compression", "bytes_before"), try report.number("compression", "bytes_after")
        )
        #expect(after > 0 && after < before)
        #expect(try report.number("compression", "cpu_us") > 0)
    }

    @Test(
        "are right at the destination, and the report counts them",
        .timeLimit(.minutes(1)),
        arguments: ["lz4", "zstd"]
    )
    func demo(codec: String) throws {
        let workspace = try Workspace()
        // Text, which shrinks; the pages that the workload writes by itself do not.
        let text = workspace.file("text")
        let line = "GET /index.html HTTP/1.1 200 from 10.0.0.7, as often as it takes\n"
        try String(repeating: line, count: 200_000).write(toFile: text, atomically: true, encoding: .utf8)
        let options = ["--memory", "48MiB", "--workload", "kv", "--load", text, "--threads", "2"]
        let finished = try Executable.run(
            Executable.pageferry,
            ["demo", "--compress", codec, "--prefetch", "none", "--json"] + options
        )
        #expect(finished.status == 0, "\(finished)")
        try expectCompressed(finished.output, by: codec)
        let report = try Printed(finished.output)
        #expect(try report.value("verify", "lines_found") == 200_000)
    }

    @Test("are used for one migration if migrate says so", .timeLimit(.minutes(1)))
    func migrate() throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, "--memory", "32MiB", "--workload", "kv")
        let destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0", "--prefetch", "none")
        defer {
            source.end()
            destination.end()
        }
        let finished = try Executable.run(
            Executable.pageferry,
            ["migrate", "--source", source.socket, "--destination", destination.socket, "--compress", "zstd"]
                + ["--verify", "--json"]
        )
        #expect(finished.status == 0, "\(finished)")
        let report = try Printed(finished.output)
        #expect(try report.value("verify", "corrupt") == 0)
        #expect(try report.value("compression", "setting") == "zstd")
    }
}

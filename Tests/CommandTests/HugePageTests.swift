import Foundation
import HugePages
import LinuxSystem
import Testing

@Suite("Huge pages")
struct HugePageTests {
    private static let demo = ["demo", "--memory", "64MiB", "--page-size", "2MiB", "--json"]

    @Test(
        "move with their workload, and every page is right",
        .timeLimit(.minutes(2)),
        arguments: [["--regions", "3", "--threads", "2"], ["--workload", "kv"], ["--no-push"]]
    )
    func moves(options: [String]) throws {
        try HugePages.with(free: 64) {
            let finished = try Executable.run(Executable.pageferry, HugePageTests.demo + options)
            #expect(finished.status == 0, "\(finished)")
            let report = try Printed(finished.output)
            #expect(try report.value("result") == "completed")
            #expect(try report.value("page_size") == 2_097_152)
            #expect(try report.value("memory_bytes") == 64 << 20)
            #expect(try report.number("pages", "total") == 32)
            #expect(try report.number("verify", "pages_checked") == 32)
            #expect(try report.number("verify", "corrupt") == 0)
            #expect(try report.number("stall_us", "count") > 0)
            let arrived = try ["demand", "prefetched", "pushed", "zero"].map { try report.number("pages", $0) }
            #expect(arrived.reduce(0, +) == 32)
        }
    }

    @Test("that the destination lacks make it refuse, and the source resumes", .timeLimit(.minutes(2)))
    func destinationLacks() throws {
        try HugePages.with(free: 40) {
            let finished = try Executable.run(Executable.pageferry, HugePageTests.demo)
            #expect(finished.status == 1, "\(finished)")
            let report = try Printed(finished.output)
            #expect(try report.value("result") == "failed")
            #expect(try report.value("runs_on") == "source")
            let error: String = try report.value("error")
            let reason = "the workload needs 32 huge pages of 2 MiB, and on this host 8 are free; add some: sysctl vm."
            #expect(error.contains(reason))
            #expect(try report.number("verify", "corrupt") == 0)
        }
    }

    @Test("that the source lacks make it exit with one line", .timeLimit(.minutes(2)))
    func sourceLacks() throws {
        try HugePages.with(free: 8) {
            let workspace = try Workspace()
            let arguments = ["source", "--qmp", workspace.file("a.sock"), "--memory", "64MiB", "--page-size", "2MiB"]
            let finished = try Executable.run(Executable.pageferry, arguments)
            #expect(finished.status == 1, "\(finished)")
            #expect(finished.output.isEmpty, "\(finished)")
            let lines = finished.errors.split(separator: "\n")
            #expect(lines.count == 1)
            let line = "pageferry: the workload needs 32 huge pages of 2 MiB, and on this host 8 are free; add some: "
            #expect(lines.first?.hasPrefix(line) == true, "\(finished)")
        }
    }

    @Test(
        "are made of arrived memory, as transparent huge pages",
        .enabled("transparent huge pages are off", { TransparentHugePages.areEnabled }),
        .timeLimit(.minutes(2))
    )
    func transparent() throws {
        let workspace = try Workspace()
        let source = try AgentProcess.source(in: workspace, "--memory", "64MiB", "--think-time", "1ms")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace)
        defer { destination.end() }
        func hugeBytes() -> Int {
            let rollup = ProcessFile.text("/proc/\(destination.running.pid)/smaps_rollup") ?? ""
            let line = rollup.split(separator: "\n").first { $0.hasPrefix("AnonHugePages:") } ?? ""
            return (Int(line.filter(\.isNumber)) ?? 0) << 10
        }
        let before = hugeBytes()
        let migrated = try Executable.migrate(source, destination, "--verify", "--json")
        #expect(migrated.status == 0, "\(migrated)")
        #expect(try Printed(migrated.output).number("verify", "corrupt") == 0)
        // The kernel leaves pages as they are when it has no huge page free for them.
        let deadline = Date(timeIntervalSinceNow: 60)
        while hugeBytes() - before < 32 << 20, Date() < deadline { usleep(10_000) }
        #expect(hugeBytes() - before >= 32 << 20)
    }
}

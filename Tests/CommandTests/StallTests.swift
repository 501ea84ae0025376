import Foundation
import Testing

/// How long the threads of an attached process have waited, compared with what the process itself measures.
@Suite("The stalls of an attached process", .timeLimit(.minutes(2)))
struct StallTests {
    @Test("are those that its own threads measure, for each thread")
    func agreeWithProcess() throws {
        // At this rate, a page takes 1.7 ms.
        let site = try AttachedSite(rate: "20mbit")
        defer { site.end() }
        let program = AttachedProgram(command: [try site.workspace.compile("stalls")])
        let source = try site.source(program, "--max-bandwidth", "1MiB")
        let destination = try site.destination("b", program)
        let moved = try Executable.migrate(source.agent, destination.agent, "--json")
        #expect(moved.status == 0, "\(moved)")
        let line = try destination.program.line(holding: "stalls ")
        let own = line.split(separator: " ").compactMap { Double($0) }
        try #require(own.count == 3 && own[0] > 500, "\(line)")
        let report = try Printed(moved.output)
        #expect(try report.value("stall_origin") == "faults")
        for (index, field) in ["count", "p50", "p99"].enumerated() {
            let told = try report.number("stall_us", field)
            #expect((own[index] * 0.9...own[index] * 1.1).contains(told), "\(field): \(told) instead of \(own[index])")
        }
        let threads: [[String: Any]] = try report.value("threads")
        for line in destination.program.outputText.split(separator: "\n") where line.hasPrefix("thread ") {
            let own = line.split(separator: " ").compactMap { Double($0) }
            let told = try #require(threads.first { $0["id"] as? Double == own[0] }, "thread \(own[0]) is not listed")
            let (count, sum) = (try #require(told["count"] as? Double), try #require(told["total_us"] as? Double))
            #expect((own[1] * 0.9...own[1] * 1.1).contains(count), "\(count) instead of \(own[1])")
            #expect((own[2] * 0.9...own[2] * 1.1).contains(sum), "\(sum) instead of \(own[2])")
            #expect(told["waiting"] == nil)
        }
        #expect(threads.count >= 3)
        #expect(!destination.program.outputText.contains("wrong page"))
        let answer = try Printed(destination.agent.qmp("query-migrate"))
        let latencies: [Any] = try answer.value("return", "postcopy-vcpu-latency")
        #expect(latencies.count == threads.count)
    }

    @Test("that are open are told with their threads")
    func openStalls() throws {
        let site = try AttachedSite(rate: "20mbit")
        defer { site.end() }
        let program = AttachedProgram(command: [try site.workspace.compile("stalls")])
        let source = try site.source(program, "--max-bandwidth", "1MiB", "--recover-for", "0s")
        let destination = try site.destination("b", program)
        let begun = try Executable.migrate(source.agent, destination.agent, "--detach")
        #expect(begun.status == 0, "\(begun)")
        try site.wait(destination.agent, for: "postcopy-active")
        try site.hosts.cutLink()
        try site.wait(destination.agent, for: "postcopy-paused")
        let json = try Executable.run(
            Executable.pageferry,
            ["status", "--json", destination.agent.socket]
        ).output
        let threads: [[String: Any]] = try Printed(json).value("destination", "threads")
        let waiting = threads.filter { $0["waiting"] != nil }
        #expect(waiting.count == 3, "\(json)")
        for thread in waiting {
            let wait = try #require(thread["waiting"] as? [String: Any])
            #expect(wait["region"] as? Int == 0)
            #expect((0..<3072).contains(try #require(wait["page"] as? Int)))
            #expect(try #require(wait["us"] as? Double) > 100_000)
        }
        let text = try Executable.run(
            Executable.pageferry,
            ["status", destination.agent.socket]
        ).output
        #expect(text.contains("3 faults wait for their pages"), "\(text)")
        for thread in waiting { #expect(text.contains("\(try #require(thread["id"] as? Int))"), "\(text)") }
    }
}

import Foundation
import LinuxSystem
import Testing

/// The memory, threads and descriptors that agents keep after migrations are over.
@Suite(.timeLimit(.minutes(3)))
struct KeptMemoryTests {
    private let workspace: Workspace

    init() throws {
        workspace = try Workspace()
    }

    /// The resources of a process.
    private struct Kept {
        let descriptors: Int
        let threads: Int
        /// Bytes of the process's own memory.
        let memory: Int

        init(_ agent: AgentProcess) throws {
            let folder = "/proc/\(agent.running.pid)"
            descriptors = try FileManager.default.contentsOfDirectory(atPath: "\(folder)/fd").count
            threads = try FileManager.default.contentsOfDirectory(atPath: "\(folder)/task").count
            let line = ProcessFile.text("\(folder)/status")?.split(separator: "\n").first { $0.hasPrefix("RssAnon:") }
            guard let kibibytes = line?.split(separator: " ").dropLast().last.flatMap({ Int($0) }) else {
                throw TestFailure("no RssAnon of \(folder)")
            }
            memory = kibibytes << 10
        }
    }

    private func wait(_ agent: AgentProcess, for state: String) throws {
        let deadline = Date(timeIntervalSinceNow: 30)
        while try !agent.qmp("query-migrate").contains("\"\(state)\"") {
            guard Date() < deadline else { throw TestFailure("never \(state): \(try agent.qmp("query-migrate"))") }
        }
    }

    @Test(arguments: [[], ["--in-thread"]])
    func `hundreds of migrations that fail after READY leave nothing behind on either side`(options: [String]) throws {
        let source = try AgentProcess.source(in: workspace, "--memory", "1MiB", "--device", "broken:load")
        defer { source.end() }
        let destination = try AgentProcess.destination(in: workspace, options)
        defer { destination.end() }
        let port = try Listener(at: .tcp(host: "127.0.0.1", port: 0)).address
        func fail(_ times: Int) throws {
            for _ in 0..<times {
                let incoming =
                    "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"\(port)\",\"exit-on-error\":false}}"
                #expect(try destination.qmp(incoming).contains("return"))
                let outgoing = "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"\(port)\"}}"
                #expect(try source.qmp(outgoing, "migrate-start-postcopy").contains("return"))
                try wait(source, for: "failed")
                try wait(destination, for: "failed")
            }
        }
        try fail(20)
        let before = try [source, destination].map { try Kept($0) }
        try fail(250)
        // Threads and descriptors of the last migration may take a moment to go.
        let deadline = Date(timeIntervalSinceNow: 20)
        var after = try [source, destination].map { try Kept($0) }
        while zip(before, after).contains(where: { $1.descriptors > $0.descriptors + 4 || $1.threads > $0.threads + 4 }
        ),
            Date() < deadline
        {
            after = try [source, destination].map { try Kept($0) }
        }
        for (before, after) in zip(before, after) {
            #expect(after.descriptors <= before.descriptors + 4, "\(before) then \(after)")
            #expect(after.threads <= before.threads + 4, "\(before) then \(after)")
            // If each migration kept only a few pages, 250 migrations would exceed this.
            #expect(after.memory <= before.memory + 8 << 20, "\(before) then \(after)")
        }
    }

    @Test func `the memory of a workload that has moved away is released, also after the workload came back`() throws {
        let size = 96 << 20
        let first = try AgentProcess.source(in: workspace, "--memory", "96MiB")
        defer { first.end() }
        let second = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        defer { second.end() }
        // Pages that were never written do not count as the process's own.
        let least = size * 9 / 10
        #expect(try Kept(first).memory > least)
        for (source, destination) in [(first, second), (second, first), (first, second)] {
            let migrated = try Executable.migrate(source, destination, "--verify")
            #expect(migrated.status == 0, "\(migrated)")
            try waitUntil { try Kept(source).memory < size / 2 }
            #expect(try Kept(source).memory < size / 2)
            let kept = try Kept(destination).memory
            #expect(kept > least)
            #expect(kept < size * 3 / 2)
            #expect(try source.qmp("query-status").contains("\"running\":false"))
            _ = try source.status()
        }
    }

    private func waitUntil(_ condition: () throws -> Bool) throws {
        let deadline = Date(timeIntervalSinceNow: 20)
        while try !condition(), Date() < deadline {}
    }
}

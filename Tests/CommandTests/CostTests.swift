import Foundation
import Testing

@Suite("What the agents cost")
struct CostTests {
    private static let memory = 256 << 20

    @Test("is hardly any processor time while they are idle", .timeLimit(.minutes(2)))
    func idle() async throws {
        let agents = try Agents()
        defer { agents.end() }
        try await agents.expectIdle("before the migration")
        try agents.migrate()
        try await agents.expectIdle("after the migration")
    }

    @Test("is little memory beside the workload's", .timeLimit(.minutes(2)))
    func memory() throws {
        let agents = try Agents()
        defer { agents.end() }
        try agents.migrate()
        // 32 MiB, and 8 bits a page.
        let bound = 32 << 20 + CostTests.memory / 4096
        for (name, agent) in agents.all {
            let beyond = try beyondRegions(of: agent.running.pid)
            #expect(beyond < bound, "the \(name) holds \(beyond >> 20) MiB beside the workload's memory")
        }
    }

    @Test(
        "is at most twice a bare fault, at no less than half the rate of a bare transfer",
        .enabled(if: Executable.isReleaseBuild, "a debug build is not made to be fast"),
        .timeLimit(.minutes(4))
    )
    func speed() throws {
        let workspace = try Workspace()
        let bare = try workspace.compile("floor")
        // The bare program and Pageferry take turns. Other work of the machine slows a round down, so that one good
        // round is enough. Pageferry moves memory beside a workload that never rests and takes its share of two
        // processors.
        var stalls: [Double] = []
        var rates: [Double] = []
        for _ in 0..<12 where !(stalls.contains { $0 <= 2 } && rates.contains { $0 >= 0.5 }) {
            let floor = try Printed(try successful(Executable.run(bare, ["2000", "1024"])))
            let single = try Printed(
                try successful(
                    Executable.pageferry("demo", "--memory", "64MiB", "--no-push", "--write", "0", "--json")
                )
            )
            let whole = try Printed(try successful(Executable.pageferry("demo", "--memory", "1GiB", "--json")))
            let bareStall: NSNumber = try floor.value("remote_fault_p50_us")
            let bareRate: NSNumber = try floor.value("bulk_mib_s")
            let rate: NSNumber = try whole.value("throughput_mib_s")
            stalls.append(try single.number("stall_us", "p50") / bareStall.doubleValue)
            rates.append(rate.doubleValue / bareRate.doubleValue)
        }
        #expect(stalls.contains { $0 <= 2 }, "stall / bare remote fault: \(stalls)")
        #expect(rates.contains { $0 >= 0.5 }, "throughput / bare bulk: \(rates)")
        print("stall / bare remote fault: \(stalls); throughput / bare bulk: \(rates)")
    }

    private func successful(_ finished: Finished) throws -> String {
        guard finished.status == 0 else { throw TestFailure("\(finished)") }
        return finished.output
    }

    /// The proportional set size of a process in bytes, without the mappings of the workload's memory.
    private func beyondRegions(of pid: Int32) throws -> Int {
        var total = 0
        var isRegion = false
        for line in try String(contentsOfFile: "/proc/\(pid)/smaps", encoding: .utf8).split(separator: "\n") {
            let words = line.split(separator: " ", omittingEmptySubsequences: true)
            guard words.count == 3, let size = Int(words[1]) else { continue }
            if words[0] == "Size:" { isRegion = size << 10 >= CostTests.memory }
            if words[0] == "Pss:", !isRegion { total += size << 10 }
        }
        return total
    }
}

/// A source and a destination.
private struct Agents {
    let source: AgentProcess
    let destination: AgentProcess
    private let workspace: Workspace

    init() throws {
        workspace = try Workspace()
        source = try AgentProcess.source(in: workspace, "--memory", "256MiB", "--think-time", "1ms")
        do {
            destination = try AgentProcess.destination(in: workspace, "--listen", "127.0.0.1:0")
        } catch {
            source.end()
            throw error
        }
    }

    var all: [(name: String, agent: AgentProcess)] { [("source", source), ("destination", destination)] }

    func migrate() throws {
        let migrated = try Executable.migrate(source, destination)
        guard migrated.status == 0 else { throw TestFailure("\(migrated)") }
    }

    /// Checks that each agent takes less than 1 % of a core over 10 s, without the workload's own threads.
    func expectIdle(_ when: String) async throws {
        let before = try all.map { try processorTicks(of: $0.agent.running.pid) }
        try await Task.sleep(for: .seconds(10))
        for ((name, agent), earlier) in zip(all, before) {
            // A tick is 10 ms.
            let ticks = try processorTicks(of: agent.running.pid) - earlier
            #expect(ticks < 10, "\(when) the \(name) used \(ticks * 10) ms in 10 s")
        }
    }

    private func processorTicks(of pid: Int32) throws -> Int {
        var ticks = 0
        for thread in try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task") {
            // A thread that has exited meanwhile has no file.
            guard let line = try? String(contentsOfFile: "/proc/\(pid)/task/\(thread)/stat", encoding: .utf8),
                let end = line.lastIndex(of: ")"), !line.contains("(work-")
            else { continue }
            let fields = line[line.index(after: end)...].split(separator: " ")
            ticks += (Int(fields[11]) ?? 0) + (Int(fields[12]) ?? 0)
        }
        return ticks
    }

    func end() {
        source.end()
        destination.end()
    }
}

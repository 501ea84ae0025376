import Foundation
import LinuxSystem
import Testing

/// A C program that drops, unmaps, moves or forks its memory while pages of it are missing.
@Suite("A process that is careless with memory that has not arrived", .timeLimit(.minutes(1)))
struct CarelessTests {
    /// Moves the program's memory, whose pages arrive slowly.
    private func move(
        _ memory: String,
        _ action: String,
        _ body: (AttachedSite, _ source: AttachedSite.Side, _ destination: AttachedSite.Side) throws -> Void
    ) throws {
        let site = try AttachedSite()
        defer { site.end() }
        let program = AttachedProgram(command: [try site.workspace.compile("careless")], options: [memory, action])
        let source = try site.source(program, "--max-bandwidth", "8MiB")
        let destination = try site.destination("b", program)
        let begun = try Executable.migrate(source.agent, destination.agent, "--detach")
        #expect(begun.status == 0, "\(begun)")
        try body(site, source, destination)
    }

    /// Waits until the workload has arrived whole and with the right content.
    private func expectCompleted(_ site: AttachedSite, _ side: AttachedSite.Side) throws {
        _ = try side.program.line(holding: "complete")
        #expect(side.program.numbers(after: "wrong pages") == [0])
        #expect(side.program.numbers(after: "byte before") == [2])
        try site.wait(side.agent, for: "completed")
    }

    @Test("reads zeros where it has dropped private pages, and nowhere else")
    func drops() throws {
        try move("private", "drop") { site, _, destination in
            try expectCompleted(site, destination)
            #expect(destination.program.numbers(after: "byte that was dropped") == [0])
        }
    }

    @Test("is not waited for where it has unmapped pages", arguments: ["private", "file"])
    func unmaps(memory: String) throws {
        try move(memory, "unmap") { site, _, destination in try expectCompleted(site, destination) }
    }

    @Test(
        "has a child that never reads zeros, a warning in the log, and no descriptor left",
        arguments: ["private", "file"]
    )
    func forks(memory: String) throws {
        try move(memory, "fork") { site, _, destination in
            try expectCompleted(site, destination)
            #expect(destination.program.numbers(after: "child has ended") == [0])
            let warning = try destination.agent.running.errorLine(holding: " has forked while pages are missing")
            #expect(warning.contains("careless (process \(destination.program.pid))"), "\(warning)")
            while try userfaultfds(of: destination.agent) > 1 { sched_yield() }
        }
    }

    @Test(
        "pauses the migration with the reason, and its reader of a missing page waits",
        arguments: [("private", "remap"), ("file", "remap"), ("file", "drop")]
    )
    func losesMemory(memory: String, action: String) throws {
        try move(memory, action) { site, source, destination in
            for side in [source, destination] { try site.wait(side.agent, for: "postcopy-paused") }
            let reason =
                action == "drop"
                ? "memory of the workload is lost: the process has dropped 8 pages of region 0, a memory file, before "
                : "memory of the workload is lost: the process has moved memory of region 0 from address "
            for side in [source, destination] { _ = try side.agent.running.errorLine(holding: reason) }
            // The source is refused when it reconnects, and does not try again by itself.
            while try !source.agent.status().contains("the destination refuses the migration: \(reason)") {
                sched_yield()
            }
            #expect(try destination.agent.status().contains(reason))
            let id = destination.program.pid
            let tasks = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(id)/task")
            let places = tasks.map { ProcessFile.text("/proc/\(id)/task/\($0)/wchan") ?? "" }
            #expect(places.contains("handle_userfault"), "\(places)")
            #expect(destination.program.numbers(after: "byte that was moved") == [])
            #expect(destination.program.numbers(after: "byte that was dropped") == [])
        }
    }

    /// The number of userfaultfds that an agent has open.
    private func userfaultfds(of agent: AgentProcess) throws -> Int {
        let folder = "/proc/\(agent.running.pid)/fd"
        return try FileManager.default.contentsOfDirectory(atPath: folder).count {
            // A descriptor may be closed meanwhile.
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\($0)"))
                == "anon_inode:[userfaultfd]"
        }
    }
}

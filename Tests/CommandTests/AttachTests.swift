import Foundation
import Testing

@Suite("An attached process")
struct AttachTests {
    @Test("is served its pages, finds each of them right, and agrees with the report", .timeLimit(.minutes(2)))
    func attaches() throws {
        let workspace = try Workspace()
        let client = try workspace.compile("attach")
        let source = try AgentProcess.source(
            in: workspace,
            "--memory",
            "32MiB",
            "--regions",
            "2",
            "--seed",
            "7",
            "--no-push",
            "--device",
            "large:2"
        )
        defer { source.end() }
        let destination = try AgentProcess.destination(
            in: workspace,
            "--listen",
            "127.0.0.1:0",
            "--attach",
            workspace.file("attach.sock"),
            "--prefetch",
            "none"
        )
        defer { destination.end() }
        let half = String(16 << 20)
        let attached = try Running(client, [workspace.file("attach.sock"), "7", half, half])
        defer { attached.end() }
        let migrated = try Executable.migrate(source, destination, "--json")
        #expect(migrated.status == 0, "\(migrated)")
        let finished = try attached.finish()
        #expect(finished.status == 0, "\(finished)")
        _ = try destination.running.errorLine(holding: "the workload has ended: ")
        #expect(try !destination.qmp("query-status").contains("\"running\":true"))
        let seen = try JSONSerialization.jsonObject(with: Data(finished.output.utf8)) as? [String: NSNumber] ?? [:]
        #expect(seen["pages"] == 8192)
        #expect(seen["wrong"] == 0)
        let report = try Printed(migrated.output)
        #expect(try report.number("pages", "demand") == 8192)
        // The process waits as long as the agent reports, plus two wake-ups. The local fault may have been measured while
        // the processors were awake; waking an idle processor of a virtual machine takes up to 90 µs.
        let stall = seen["p50_us"]?.doubleValue ?? 0
        let service = try report.number("service_us", "p50")
        let localFault = try report.number("floor_us", "local_fault_p50")
        #expect(stall > service * 0.9, "stall \(stall), service \(service)")
        #expect(
            stall < service * 1.5 + 3 * localFault + 2 * 90,
            "stall \(stall), service \(service), local fault \(localFault)"
        )
    }

    @Test("that hands its memory file over finds each page right and keeps its writes", .timeLimit(.minutes(2)))
    func handsItsFileOver() throws {
        let workspace = try Workspace()
        let client = try workspace.compile("attach_file")
        let source = try AgentProcess.source(in: workspace, "--memory", "48MiB", "--seed", "7", "--threads", "2")
        defer { source.end() }
        let destination = try AgentProcess.destination(
            in: workspace,
            "--listen",
            "127.0.0.1:0",
            "--attach",
            workspace.file("attach.sock")
        )
        defer { destination.end() }
        let attached = try Running(client, [workspace.file("attach.sock"), "7", String(48 << 20)])
        defer { attached.end() }
        let migrated = try Executable.migrate(source, destination, "--json")
        #expect(migrated.status == 0, "\(migrated)")
        let finished = try attached.finish()
        #expect(finished.status == 0, "\(finished)")
        #expect(finished.output == "{\"pages\":12288,\"wrong\":0}\n")
    }

    @Test("that does not fit a workload waits for the next, and the source resumes", .timeLimit(.minutes(2)))
    func doesNotFit() throws {
        let workspace = try Workspace()
        let client = try workspace.compile("attach")
        let source = try AgentProcess.source(in: workspace, "--memory", "16MiB")
        defer { source.end() }
        let destination = try AgentProcess.destination(
            in: workspace,
            "--listen",
            "127.0.0.1:0",
            "--attach",
            workspace.file("attach.sock")
        )
        defer { destination.end() }
        let attached = try Running(client, [workspace.file("attach.sock"), "1", String(8 << 20)])
        defer { attached.end() }
        let refused = try Executable.migrate(source, destination, "--json")
        #expect(refused.status == 1, "\(refused)")
        let report = try Printed(refused.output)
        #expect(try report.value("runs_on") == "source")
        let error: String = try report.value("error")
        #expect(error.contains("does not fit the workload"))
        let other = try Workspace()
        let fitting = try AgentProcess.source(in: other, "--memory", "8MiB", "--seed", "1")
        defer { fitting.end() }
        let migrated = try Executable.migrate(fitting, destination, "--json")
        #expect(migrated.status == 0, "\(migrated)")
        let finished = try attached.finish()
        #expect(finished.status == 0, "\(finished)")
    }
}

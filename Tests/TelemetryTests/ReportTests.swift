import Foundation
import Identity
import Telemetry
import Testing

@Suite("A report")
struct ReportTests {
    @Test("is printed with every field, including an empty error")
    func keys() throws {
        let json = try JSONSerialization.jsonObject(with: Data(Report().json().utf8)) as? [String: Any] ?? [:]
        #expect(
            Set(json.keys) == [
                "schema", "kind", "result", "error", "page_size", "memory_bytes", "runs_on", "source", "destination",
                "workload", "downtime_us", "switchover_us", "total_us", "pages", "stall_us", "service_us", "floor_us",
                "throughput_mib_s", "push_lanes", "verify", "waiting", "stall_origin", "threads", "compression",
                "timeline", "histogram", "arrivals",
            ]
        )
        #expect(json["error"] is NSNull)
        func keys(_ name: String) -> Set<String> { Set((json[name] as? [String: Any] ?? [:]).keys) }
        #expect(keys("switchover_us") == ["stop", "save", "transfer", "load", "grant", "start"])
        #expect(
            keys("pages")
                == ["total", "demand", "prefetched", "prefetched_unused", "pushed", "zero", "duplicate"]
        )
        #expect(keys("stall_us") == ["count", "mean", "p50", "p90", "p99", "p999", "max", "total"])
        #expect(keys("waiting") == ["faults", "oldest_us"])
        #expect(keys("workload") == ["name", "ops_source", "ops_destination", "ops_after_take_back"])
    }

    @Test("has failed if a page is wrong, although both sides completed")
    func corrupt() {
        var side = AgentReport(instance: "")
        side.states = [MigrationState.none, .completed]
        var verify = Report.Verify()
        #expect(Report(source: side, destination: side, verify: verify).result == .completed)
        verify.corrupt = 1
        #expect(Report(source: side, destination: side, verify: verify).result == .failed)
    }

    /// The report of a side with a state of the migration, at which the workload runs or not.
    private func side(_ state: MigrationState, runs: Bool = false) -> AgentReport {
        var side = AgentReport(instance: "")
        side.states = [MigrationState.none, state]
        side.runsHere = runs
        return side
    }

    @Test("says where the workload runs only if an agent can know")
    func place() throws {
        func report(_ source: AgentReport, _ destination: AgentReport, _ gone: Set<Report.Side> = []) -> Report {
            Report(source: source, destination: destination, gone: gone, verify: Report.Verify())
        }
        #expect(report(side(.failed, runs: true), side(.failed)).runsOn == .source)
        #expect(report(side(.postcopyPaused), side(.postcopyPaused, runs: true)).runsOn == .destination)
        #expect(report(side(.failed), side(.failed)).runsOn == .nobody)
        #expect(report(side(.failed), side(.failed), [.destination]).runsOn == .nobody)
        #expect(report(side(.completed), side(.completed), [.source]).runsOn == .nobody)
        #expect(report(side(.active), side(.setup), [.source]).runsOn == nil)
        let started = report(side(.postcopyPaused), side(.postcopyActive), [.destination])
        #expect(started.runsOn == nil)
        #expect(started.error?.hasPrefix("the destination's agent does not answer: look at it with") == true)
        let unknown = report(side(.postcopyActive), side(.postcopyActive), [.source, .destination])
        #expect(unknown.error?.hasPrefix("neither agent answers any more: look at both with") == true)
        let json = try JSONSerialization.jsonObject(with: Data(unknown.json().utf8)) as? [String: Any] ?? [:]
        #expect(json["runs_on"] is NSNull)
    }

    @Test("counts durations to within a hundredth")
    func recorder() {
        let recorder = LatencyRecorder()
        for value in 1...10_000 { recorder.record(nanoseconds: UInt64(value) * 1000) }
        let summary = LatencySummary([recorder])
        #expect(summary.count == 10_000)
        for (found, exact) in [(summary.p50, 5000.0), (summary.p99, 9900), (summary.mean, 5000.5)] {
            #expect(abs(found - exact) / exact < 0.01, "\(found), \(exact)")
        }
    }

    @Test("counts pages without overflow, whatever an agent reports", arguments: [Int.max, Int.min, -1])
    func lies(count: Int) throws {
        var side = AgentReport(instance: "")
        side.destination = AgentReport.Destination()
        side.destination?.pages.demand = count
        side.destination?.pages.pushed = count
        side.destination?.untilResident = .leastNonzeroMagnitude
        side.memoryBytes = .max
        #expect((0...Int.max).contains(side.destination?.pages.resident ?? -1))
        #expect(throws: AgentReport.Contradiction.self) { try side.requireSound() }
        side.source = AgentReport.Source()
        side.source?.untilLoaded = .greatestFiniteMagnitude
        side.source?.untilRunning = .greatestFiniteMagnitude
        side.source?.lastOperationToRun = .greatestFiniteMagnitude
        side.destination?.start = .greatestFiniteMagnitude
        _ = try Report(source: side, destination: side, verify: Report.Verify()).json()
    }
}

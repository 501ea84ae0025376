import Foundation
import Telemetry
import Testing

@Suite("A report")
struct ReportTests {
    @Test("is printed with every field of its form, also an error that there is not")
    func keys() throws {
        let json = try JSONSerialization.jsonObject(with: Data(Report().json().utf8)) as? [String: Any] ?? [:]
        #expect(
            Set(json.keys) == [
                "schema", "result", "error", "page_size", "memory_bytes", "runs_on", "source", "destination",
                "workload", "downtime_us", "switchover_us", "total_us", "pages", "stall_us", "service_us", "floor_us",
                "throughput_mib_s", "verify",
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
        #expect(keys("workload") == ["name", "ops_source", "ops_destination", "ops_after_take_back"])
    }

    @Test("fails when a page is wrong, though both sides completed")
    func corrupt() {
        var side = AgentReport(instance: "")
        side.states = ["none", "completed"]
        var verify = Report.Verify()
        #expect(Report(source: side, destination: side, verify: verify).result == .completed)
        verify.corrupt = 1
        #expect(Report(source: side, destination: side, verify: verify).result == .failed)
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
}

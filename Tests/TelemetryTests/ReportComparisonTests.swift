import Foundation
import Testing

@testable import Telemetry

@Suite("A comparison of two reports")
struct ReportComparisonTests {
    /// A report with waits at the ends of eighths of an octave above 1 µs, by the number of the eighth.
    private func report(_ counts: [Int: Double]) -> Report {
        var report = Report()
        let parts = counts.sorted { $0.key < $1.key }.map { [exp2(Double($0.key) / 8), $0.value] }
        report.distribution = Report.Distribution(stall: parts, service: [])
        report.stall.count = UInt64(counts.values.reduce(0, +))
        (report.stall.p50, report.stall.p99) = (1, 1)
        return report
    }

    private func verdict(_ field: String, _ a: Report, _ b: Report) -> ReportComparison.Verdict? {
        ReportComparison((a, "a"), (b, "b")).figures.first { $0.field == field }?.verdict
    }

    @Test("bounds a quantile by the ranks that tables of the binomial distribution give")
    func ranks() throws {
        // P(Bin(16, 1/2) <= 2) is 0.0021, and P(Bin(16, 1/2) <= 3) is 0.0106.
        let few = try #require(QuantileInterval.ranks(of: 0.5, among: 16))
        #expect(few.lower == 3 && few.upper == 14)
        // 0.5^7 is more than half a hundredth, and 0.5^8 is less.
        #expect(QuantileInterval.ranks(of: 0.5, among: 7) == nil)
        #expect(try #require(QuantileInterval.ranks(of: 0.5, among: 8)) == (1, 8))
        // 0.99^528 is the first power below half a hundredth.
        #expect(QuantileInterval.ranks(of: 0.99, among: 527) == nil)
        #expect(try #require(QuantileInterval.ranks(of: 0.99, among: 528)).upper == 528)
        // The approximation for many values continues the sums.
        let (summed, approximated) = (
            try #require(QuantileInterval.ranks(of: 0.5, among: 40_000)),
            try #require(QuantileInterval.ranks(of: 0.5, among: 40_001))
        )
        #expect(abs(summed.lower - approximated.lower) <= 2 && abs(summed.upper - approximated.upper) <= 2)
        #expect(QuantileInterval.ranks(of: 0.5, among: 0) == nil)
    }

    @Test("holds the true quantile as often as it says")
    func coverage() {
        var (held, generator) = (0, SystemRandomNumberGenerator())
        let rounds = 2000
        for _ in 0..<rounds {
            // The median of a uniform distribution over 0 to 80 eighths is 40 eighths.
            var counts: [Int: Double] = [:]
            for _ in 0..<500 { counts[Int.random(in: 1...80, using: &generator), default: 0] += 1 }
            let parts = counts.map { [exp2(Double($0.key) / 8), $0.value] }
            let interval = QuantileInterval(of: 0.5, in: parts, perOctave: 8)
            if let interval, interval.low <= exp2(5) * 1.0001, interval.high >= exp2(5) * 0.9999 { held += 1 }
        }
        // With a coverage of 0.99, fewer have a probability far below 1 in a million.
        #expect(held > 1950, "\(held) of \(rounds)")
    }

    @Test("says that a wait differs only if the intervals have room between them")
    func verdicts() {
        let many = report([20: 5000, 21: 5000, 30: 200])
        #expect(verdict("stall_us.p50", many, many) == .noDifference)
        #expect(verdict("stall_us.p50", many, report([21: 5000, 22: 5000, 30: 200])) == .noDifference)
        #expect(verdict("stall_us.p50", many, report([28: 10_000, 30: 200])) == .differs)
        #expect(verdict("stall_us.p99", many, report([28: 10_000, 30: 200])) == .noDifference)
        #expect(verdict("stall_us.p50", many, report([28: 7])) == .tooFew)
        #expect(verdict("stall_us.p999", many, report([28: 100])) == .tooFew)
        #expect(verdict("service_us.p50", many, many) == .tooFew)
        #expect(verdict("stall_us.p50", many, Report()) == .tooFew)
        #expect(verdict("downtime_us", many, report([28: 10_000])) == .measuredOnce)
        #expect(verdict("stall_us.max", many, report([28: 10_000])) == .measuredOnce)
    }

    @Test("divides only what both reports have")
    func ratios() throws {
        var (a, b) = (Report(), Report())
        (a.total, b.total) = (4, 2)
        a.downtime = 3
        let figures = ReportComparison((a, "a"), (b, "b")).figures
        #expect(figures.first { $0.field == "total_us" }?.ratio == 0.5)
        #expect(figures.contains { $0.field == "downtime_us" && $0.ratio == nil })
        a.total = .leastNonzeroMagnitude
        b.total = .greatestFiniteMagnitude
        _ = try ReportComparison((a, "a"), (b, "b")).json()
    }

    @Test(
        "reads no text that is another's, older, cut off or out of bounds",
        arguments: [
            ("", "its JSON is cut off or broken"), ("[]", "not of the type"), ("{}", "it has no field schema"),
            (#"{"schema":"pageferry.report/2"}"#, "its format is pageferry.report/2, and not pageferry.report/1"),
            (#"{"schema":"pageferry.report/1"}"#, "it has no field "),
            (#"{"schema":7}"#, "its field schema is not of the type"),
        ]
    )
    func unreadable(text: String, reason: String) {
        let error = #expect(throws: Report.Unreadable.self) { try Report(json: Data(text.utf8)) }
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }

    @Test("reads what it writes, and no histogram that is out of bounds")
    func reading() throws {
        var written = report([20: 10])
        let json = try written.json()
        #expect(try Report(json: Data(json.utf8)) == written)
        for end in stride(from: 0, to: json.utf8.count, by: 97) {
            #expect(throws: Report.Unreadable.self) { try Report(json: Data(json.utf8.prefix(end))) }
        }
        for part in [[1.0], [1, -1], [1, 1e300]] {
            written.distribution?.stall = [part]
            #expect(throws: Report.Unreadable.self) { try Report(json: Data(written.json().utf8)) }
        }
    }
}

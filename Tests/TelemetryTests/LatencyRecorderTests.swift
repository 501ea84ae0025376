import Telemetry
import Testing

@Suite("A latency recorder")
struct LatencyRecorderTests {
    private func recorder(_ durations: UInt64...) -> LatencyRecorder {
        let recorder = LatencyRecorder()
        for duration in durations { recorder.record(nanoseconds: duration) }
        return recorder
    }

    @Test("is precise to 0.8 %")
    func sum() {
        let sum = LatencyRecorder.sum(of: [recorder(100, 5_000), recorder(1_000_000)])
        #expect(sum.count == 3)
        #expect(abs(Double(sum.nanoseconds) - 1_005_100) < 0.008 * 1_005_100)
        #expect(LatencyRecorder.sum(of: []) == (0, 0))
    }

    @Test("loses no duration when several threads record", .timeLimit(.minutes(1)))
    func severalWriters() async {
        let recorder = LatencyRecorder()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask { for _ in 0..<200_000 { recorder.record(nanoseconds: 1000) } }
            }
        }
        #expect(LatencyRecorder.sum(of: [recorder]).count == 800_000)
    }

    @Test("is summarized with a time added to each duration")
    func adding() {
        let summary = LatencySummary([recorder(100_000, 300_000)], adding: 50_000)
        #expect(summary.count == 2)
        #expect(abs(summary.total - 500) < 5)
        #expect(abs(summary.max - 350) < 4)
    }

    @Test("counts by powers of two of microseconds")
    func powersOfTwo() {
        let counts = LatencyRecorder.powersOfTwo(
            of: [recorder(0, 999, 1_100, 1_900, 2_100, 300_000), recorder(300_000, .max)]
        )
        #expect(counts.count == 32)
        #expect(counts[0] == 4)
        #expect(counts[1] == 1)
        // This bucket covers 256 to 512 microseconds.
        #expect(counts[8] == 2)
        #expect(counts[30] == 1)
        #expect(counts.reduce(0, +) == 8)
    }
}

import Testing

@testable import PageFetcher

@Suite
struct RepeatedWakesTests {
    private static let second: UInt64 = 1_000_000_000

    /// Notes wakes of page 5, `interval` nanoseconds apart.
    private func note(_ count: Int, every interval: UInt64, from start: UInt64, in wakes: RepeatedWakes) -> Int {
        (0..<count).count { wakes.note(5, region: 0, now: start + UInt64($0) * interval) }
    }

    @Test func `a page is woken as often as threads may race for it, and then no more`() {
        let wakes = RepeatedWakes()
        #expect(note(5000, every: 1000, from: Self.second, in: wakes) == RepeatedWakes.most)
        // Another page is not affected, and neither is the same page of another region.
        #expect(wakes.note(6, region: 0, now: Self.second))
        #expect(wakes.note(5, region: 1, now: Self.second))
        // The page is raised again each second, which does not end this.
        #expect(note(20, every: Self.second, from: 2 * Self.second, in: wakes) == 0)
        // The page is forgotten when it has not been woken for a while.
        #expect(note(1, every: 1, from: 60 * Self.second, in: wakes) == 1)
    }

    @Test func `a page that could be placed is counted anew`() {
        let wakes = RepeatedWakes()
        for round in 0..<10 {
            #expect(note(900, every: 1000, from: Self.second + UInt64(round) * 1_000_000, in: wakes) == 900)
            #expect(wakes.note(6, region: 0, now: Self.second))
            wakes.forget(5, region: 0)
            wakes.forget(7, region: 0)
        }
    }

    @Test func `a page that is woken seldom is woken for ever`() {
        let wakes = RepeatedWakes()
        #expect(note(20_000, every: 2_000_000, from: Self.second, in: wakes) == 20_000)
    }

    @Test func `pages beyond those that are told apart are woken`() {
        let wakes = RepeatedWakes()
        #expect((0..<1000).allSatisfy { wakes.note($0, region: 0, now: Self.second + UInt64($0)) })
    }
}

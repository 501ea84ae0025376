import Testing

@testable import PageFetcher

/// The policy alone, from faults to requested pages: no memory, no sockets.
@Suite struct FaultAroundTests {
    private func around(_ pageCounts: Int..., window: Int) -> FaultAround {
        FaultAround(pageCounts.map { PrefetchBounds(pageCount: $0, window: min($0, window)) })
    }

    @Test func `the aligned window around a fault is requested, the nearest pages first`() {
        var policy = around(1_000, window: 16)
        var memory = Faulting()
        #expect(memory.touch(37, &policy) == [38..<39, 36..<37, 39..<41, 34..<36, 41..<45, 32..<34, 45..<48])
        #expect(memory.touch(48, &policy) == [49..<50, 50..<52, 52..<56, 56..<64])
        #expect(memory.touch(79, &policy) == [78..<79, 76..<78, 72..<76, 64..<72])
        #expect(memory.faults == 3)
        #expect(policy.asked == 45)
    }

    @Test func `a window ends with its region`() {
        var policy = around(1_000, 40, window: 16)
        var memory = Faulting()
        #expect(memory.touch(999, &policy) == [998..<999, 996..<998, 992..<996])
        #expect(memory.touch(32, region: 1, &policy) == [33..<34, 34..<36, 36..<40])
        #expect(memory.touch(0, region: 1, &policy) == [1..<2, 2..<4, 4..<8, 8..<16])
        var large = around(10, window: 1024)
        var other = Faulting()
        #expect(other.touch(4, &large) == [5..<6, 3..<4, 6..<8, 1..<3, 8..<10, 0..<1])
    }

    @Test func `a window of one page or less requests nothing`() {
        var one = around(100, window: 1)
        #expect(one.faults(of: 0..<100) == 100)
        var none = FaultAround([PrefetchBounds(pageCount: 100, window: 0)])
        #expect(none.faults(of: 0..<100) == 100)
        #expect(one.asked + none.asked == 0)
    }

    @Test(arguments: [2, 8, 16, 64, 1024])
    func `a sequential reader keeps its windows, and nearly all count as used`(window: Int) {
        var policy = around(100_000, window: window)
        // One fault for each window, and now and then one for a probe.
        #expect(policy.faults(of: 0..<100_000) < 100_000 / window * 5 / 4 + 40)
        #expect(policy.unused * 5 < policy.asked)
    }

    @Test func `with random faults the windows shrink until only probes are left`() {
        var policy = around(1 << 22, window: 64)
        _ = policy.faults(of: RandomPages(3_000, of: 1 << 22))
        let asked = policy.asked
        #expect(policy.unused == asked)
        #expect(asked < 1_500 * 64)
        _ = policy.faults(of: RandomPages(3_000, of: 1 << 22).map { ($0 + 12_345) % (1 << 22) })
        #expect(policy.asked == asked)
    }

    @Test func `a sequential reader gets windows again after random faults`() {
        var policy = around(1 << 22, window: 64)
        _ = policy.faults(of: RandomPages(6_000, of: 1 << 22))
        let before = policy.asked
        #expect(policy.faults(of: 0..<50_000) < 6_000)
        #expect(policy.asked - before > 40_000)
        #expect(policy.faults(of: 50_000..<100_000) < 1_500)
    }

    @Test func `a probe whose page the push has delivered proves nothing`() {
        var policy = around(1 << 22, window: 16)
        var memory = Faulting()
        for page in RandomPages(6_000, of: 1 << 22) {
            memory.touch(page, &policy)
            // The push delivers the pages that the policy left out.
            for neighbour in page & ~15..<page & ~15 + 16 {
                memory.present.insert(Faulting.Place(region: 0, page: neighbour))
            }
        }
        // The policy has seen nothing that speaks for or against prefetching.
        #expect(policy.asked > 5_000 * 14)
        #expect(policy.unused == policy.asked)
    }
}

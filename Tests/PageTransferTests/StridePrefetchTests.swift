import Testing

@testable import PageFetcher

/// The policy alone, from faults to requested pages: no memory, no sockets.
@Suite struct StridePrefetchTests {
    private func streams(_ pageCounts: Int..., window: Int = 64) -> StridePrefetch {
        StridePrefetch(pageCounts.map { PrefetchBounds(pageCount: $0, window: min($0, window)) })
    }

    @Test func `a sequential reader faults a few times, and the requested pages are used`() {
        var policy = streams(10_000)
        #expect(policy.faults(of: 0..<10_000) < 170)
        #expect(policy.asked > 9_800)
        // The policy cannot see that the last window was used, since no fault follows it.
        #expect(policy.unused <= 64)
    }

    @Test func `a reader that goes down or in strides faults a few times`() {
        var down = streams(10_000)
        #expect(down.faults(of: (0..<10_000).reversed()) < 170)
        var strides = streams(10_000)
        #expect(strides.faults(of: stride(from: 3, to: 10_000, by: 7)) < 40)
        var back = streams(10_000)
        #expect(back.faults(of: stride(from: 9_999, through: 0, by: -5)) < 50)
    }

    @Test func `a longer window costs fewer faults, and a window of one page still helps`() {
        var long = streams(10_000, window: 1024)
        #expect(long.faults(of: 0..<10_000) < 25)
        var short = streams(10_000, window: 1)
        #expect((5_000..<5_010).contains(short.faults(of: 0..<10_000)))
    }

    @Test func `no page outside of the region is requested`() {
        for window in [64, 1024] {
            for pages in [Array(0..<300), (0..<300).reversed(), Array(stride(from: 0, to: 300, by: 13))] {
                var policy = streams(300, window: window)
                var memory = Faulting()
                for page in pages {
                    for range in memory.touch(page, &policy) {
                        #expect(range.lowerBound >= 0 && range.upperBound <= 300, "\(range)")
                    }
                }
            }
        }
    }

    @Test func `a reader that goes down gets the nearest pages first`() {
        var policy = streams(10_000)
        var memory = Faulting()
        for page in (0..<10_000).reversed() {
            let asked = memory.touch(page, &policy)
            #expect(zip(asked, asked.dropFirst()).allSatisfy { $0.lowerBound == $1.upperBound }, "\(asked)")
        }
    }

    @Test func `each of several sequential readers has a stream`() {
        var policy = streams(100_000)
        let readers = 10
        let together = (0..<2_000).flatMap { step in (0..<readers).map { $0 * 10_000 + step } }
        #expect(policy.faults(of: together) < readers * 50)
    }

    @Test func `each of two threads that pass each other has a stream`() {
        /// Faults of two readers that take turns and go towards each other again and again, on even and on odd pages.
        func faults(threads: (UInt32, UInt32)) -> Int {
            var policy = streams(100_000)
            var memory = Faulting()
            for start in stride(from: 0, to: 100_000, by: 5_000) {
                for step in 0..<30 {
                    memory.touch(start + 2 * step, thread: threads.0, &policy)
                    memory.touch(start + 61 - 2 * step, thread: threads.1, &policy)
                }
            }
            return memory.faults
        }
        #expect(faults(threads: (4711, 4712)) < 300)
        // By the places of their faults alone, the readers cannot be distinguished.
        #expect(faults(threads: (4711, 4711)) > 600)
    }

    @Test func `a thread that reads at random does not shorten another's windows`() {
        var policy = streams(1 << 20)
        var memory = Faulting()
        var random = RandomPages(.max, of: 1 << 10)
        var faults = 0
        for page in 0..<10_000 {
            let before = memory.faults
            memory.touch(page + 10_000, thread: 1, &policy)
            faults += memory.faults - before
            if let page = random.next() { memory.touch(page + 40_000, thread: 2, &policy) }
            // The random reader's memory is small and never complete, so that it always finds missing pages.
            if page % 100 == 0 { memory.present = memory.present.filter { $0.page < 40_000 } }
        }
        #expect(faults < 170)
    }

    @Test func `there may be many more threads than tables`() {
        var policy = streams(1 << 20)
        var memory = Faulting()
        for step in 0..<1_000 {
            for thread in 0..<100 { memory.touch(thread * 10_000 + step, thread: UInt32.max - UInt32(thread), &policy) }
        }
        #expect(memory.faults < 100 * 30)
    }

    @Test func `each region has its own streams`() {
        var policy = streams(100, 100)
        var memory = Faulting()
        for page in [5, 7] {
            #expect(memory.touch(page, region: 0, &policy) == [])
            #expect(memory.touch(page + 1, region: 1, &policy) == [])
        }
        #expect(memory.touch(9, region: 0, &policy) == stride(from: 11, to: 27, by: 2).map { $0..<$0 + 1 })
        #expect(memory.touch(10, region: 1, &policy) == stride(from: 12, to: 28, by: 2).map { $0..<$0 + 1 })
    }

    @Test func `nothing is requested ahead in a region whose pages are larger than the window`() {
        var policy = StridePrefetch([PrefetchBounds(pageCount: 1000, window: 0)])
        #expect(policy.faults(of: 0..<1000) == 1000)
        #expect(policy.asked == 0)
    }

    @Test func `random faults cause hardly any requests ahead`() {
        var large = streams(1 << 20)
        _ = large.faults(of: RandomPages(10_000, of: 1 << 20))
        #expect(large.asked < 100)
        var small = streams(1 << 12)
        #expect(small.faults(of: RandomPages(100_000, of: 1 << 12)) > 3_500)
        #expect(small.asked < 600)
    }

    /// Streams of four pages, each far from all others.
    private func shortStreams(_ numbers: Range<Int>) -> [Int] {
        numbers.flatMap { number in (0..<4).map { number * 1_000 + $0 } }
    }

    @Test func `if streams end early, windows shrink to nothing and prefetching rests longer each time`() {
        var policy = streams(1 << 24)
        _ = policy.faults(of: shortStreams(0..<1_000))
        let first = policy.asked
        #expect(first < 1_000 * 8)
        _ = policy.faults(of: shortStreams(1_000..<3_000))
        // None of the pages watched meanwhile would have been used.
        #expect(policy.asked == first)
        #expect(policy.unused > first - 8)
    }

    @Test func `a stream that lasts opens the windows again`() {
        var policy = streams(1 << 24)
        _ = policy.faults(of: shortStreams(0..<1_000))
        let before = policy.asked
        #expect(policy.faults(of: 9_000_000..<9_010_000) < 1_000)
        #expect(policy.asked - before > 9_000)
        // The windows then have their full length.
        #expect(policy.faults(of: 9_010_000..<9_020_000) < 170)
    }

    @Test func `a fault on a page in flight continues its stream`() {
        var policy = streams(1_000)
        var memory = Faulting()
        for page in [0, 1, 2] { memory.touch(page, &policy) }
        // Every page of the window faults, since none has arrived; no page is requested twice.
        var asked = 0
        for page in 3..<100 {
            memory.present.remove(Faulting.Place(region: 0, page: page))
            asked += memory.touch(page, &policy).reduce(0) { $0 + $1.count }
        }
        #expect(asked < 97 + 2 * 64)
        #expect(policy.unused <= 64)
    }
}

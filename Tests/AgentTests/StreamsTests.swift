import Testing

@testable import DestinationAgent

/// Faults in, pages out: no memory, no sockets.
@Suite struct StreamsTests {
    private func streams(_ pageCounts: Int..., window: Int = 64) -> Streams {
        Streams(pageCounts.map { PrefetchBounds(pageCount: $0, window: min($0, window)) })
    }

    @Test func `a reader in order faults a few times, and what was asked for is used`() {
        var policy = streams(10_000)
        #expect(policy.faults(of: 0..<10_000) < 170)
        #expect(policy.asked > 9_800)
        // That the last window was used does not show: no fault comes behind it.
        #expect(policy.unused <= 64)
    }

    @Test func `so does one that goes down, and one in strides`() {
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

    @Test func `nothing outside of the region is asked for`() {
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

    @Test func `who goes down gets the nearest pages first`() {
        var policy = streams(10_000)
        var memory = Faulting()
        for page in (0..<10_000).reversed() {
            let asked = memory.touch(page, &policy)
            #expect(zip(asked, asked.dropFirst()).allSatisfy { $0.lowerBound == $1.upperBound }, "\(asked)")
        }
    }

    @Test func `several readers in order each have a stream`() {
        var policy = streams(100_000)
        let readers = 10
        let together = (0..<2_000).flatMap { step in (0..<readers).map { $0 * 10_000 + step } }
        #expect(policy.faults(of: together) < readers * 50)
    }

    @Test func `two threads whose ways cross each have their stream`() {
        /// Faults of two readers who again and again come towards each other, in turn: one on even pages, one on odd.
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
        // By their places alone they cannot be told apart.
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
            // Its memory is small and never complete, so that there is always something to find.
            if page % 100 == 0 { memory.present = memory.present.filter { $0.page < 40_000 } }
        }
        #expect(faults < 170)
    }

    @Test func `threads may be many more than there are tables`() {
        var policy = streams(1 << 20)
        var memory = Faulting()
        for step in 0..<1_000 {
            for thread in 0..<100 { memory.touch(thread * 10_000 + step, thread: UInt32.max - UInt32(thread), &policy) }
        }
        #expect(memory.faults < 100 * 30)
    }

    @Test func `streams of different regions are different streams`() {
        var policy = streams(100, 100)
        var memory = Faulting()
        for page in [5, 7] {
            #expect(memory.touch(page, region: 0, &policy) == [])
            #expect(memory.touch(page + 1, region: 1, &policy) == [])
        }
        #expect(memory.touch(9, region: 0, &policy) == stride(from: 11, to: 27, by: 2).map { $0..<$0 + 1 })
        #expect(memory.touch(10, region: 1, &policy) == stride(from: 12, to: 28, by: 2).map { $0..<$0 + 1 })
    }

    @Test func `nothing is asked for in a region whose pages are larger than the window`() {
        var policy = Streams([PrefetchBounds(pageCount: 1000, window: 0)])
        #expect(policy.faults(of: 0..<1000) == 1000)
        #expect(policy.asked == 0)
    }

    @Test func `hardly anything is asked for where faults come at random`() {
        var large = streams(1 << 20)
        _ = large.faults(of: RandomPages(10_000, of: 1 << 20))
        #expect(large.asked < 100)
        var small = streams(1 << 12)
        #expect(small.faults(of: RandomPages(100_000, of: 1 << 12)) > 3_500)
        #expect(small.asked < 600)
    }

    /// Streams of four pages, each at another place, far from all others.
    private func shortStreams(_ numbers: Range<Int>) -> [Int] {
        numbers.flatMap { number in (0..<4).map { number * 1_000 + $0 } }
    }

    @Test func `where streams end early windows shrink to nothing, and it rests longer each time`() {
        var policy = streams(1 << 24)
        _ = policy.faults(of: shortStreams(0..<1_000))
        let first = policy.asked
        #expect(first < 1_000 * 8)
        _ = policy.faults(of: shortStreams(1_000..<3_000))
        // Nothing of what was watched meanwhile would have been used.
        #expect(policy.asked == first)
        #expect(policy.unused > first - 8)
    }

    @Test func `a stream that lasts opens the windows again`() {
        var policy = streams(1 << 24)
        _ = policy.faults(of: shortStreams(0..<1_000))
        let before = policy.asked
        #expect(policy.faults(of: 9_000_000..<9_010_000) < 1_000)
        #expect(policy.asked - before > 9_000)
        // Its windows are as long as any then.
        #expect(policy.faults(of: 9_010_000..<9_020_000) < 170)
    }

    @Test func `a page in flight that faults goes on with its stream`() {
        var policy = streams(1_000)
        var memory = Faulting()
        for page in [0, 1, 2] { memory.touch(page, &policy) }
        // All of the window faults, since none of it has come: it is not asked for twice.
        var asked = 0
        for page in 3..<100 {
            memory.present.remove(Faulting.Place(region: 0, page: page))
            asked += memory.touch(page, &policy).reduce(0) { $0 + $1.count }
        }
        #expect(asked < 97 + 2 * 64)
        #expect(policy.unused <= 64)
    }
}

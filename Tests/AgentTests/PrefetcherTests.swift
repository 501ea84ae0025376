import Testing

@testable import DestinationAgent

/// Faults in, pages out: no memory, no sockets.
@Suite struct PrefetcherTests {
    /// A reader who touches pages in order, to whom everything that was asked for comes at once.
    ///
    /// - Returns: how many faults it had.
    private func faults(_ pages: some Sequence<Int>, _ prefetcher: inout Prefetcher) -> Int {
        var present: Set<Int> = []
        var faults = 0
        for page in pages where present.insert(page).inserted {
            faults += 1
            guard let ahead = prefetcher.fault(region: 0, page: page) else { continue }
            for step in 0..<ahead.count { present.insert(ahead.first + step * ahead.stride) }
        }
        return faults
    }

    @Test func `a reader in order faults a few times, and what was asked for is used`() {
        var prefetcher = Prefetcher(pageCounts: [10_000])
        #expect(faults(0..<10_000, &prefetcher) < 170)
        #expect(prefetcher.asked > 9_800)
        // That the last window was used does not show: no fault comes behind it.
        #expect(prefetcher.unused <= 64)
    }

    @Test func `so does one that goes down, and one in strides`() {
        var down = Prefetcher(pageCounts: [10_000])
        #expect(faults((0..<10_000).reversed(), &down) < 170)
        var strides = Prefetcher(pageCounts: [10_000])
        #expect(faults(stride(from: 3, to: 10_000, by: 7), &strides) < 40)
        var back = Prefetcher(pageCounts: [10_000])
        #expect(faults(stride(from: 9_999, through: 0, by: -5), &back) < 50)
    }

    @Test func `nothing outside of the region is asked for`() {
        for pages in [Array(0..<300), (0..<300).reversed(), Array(stride(from: 0, to: 300, by: 13))] {
            var prefetcher = Prefetcher(pageCounts: [300])
            for page in pages {
                guard let ahead = prefetcher.fault(region: 0, page: page) else { continue }
                let last = ahead.first + (ahead.count - 1) * ahead.stride
                #expect(ahead.count > 0 && (0..<300).contains(ahead.first) && (0..<300).contains(last), "\(ahead)")
            }
        }
    }

    @Test func `several readers in order each have a stream`() {
        var prefetcher = Prefetcher(pageCounts: [100_000])
        let readers = 10
        let together = (0..<2_000).flatMap { step in (0..<readers).map { $0 * 10_000 + step } }
        #expect(faults(together, &prefetcher) < readers * 50)
    }

    @Test func `streams of different regions are different streams`() {
        var prefetcher = Prefetcher(pageCounts: [100, 100])
        for page in [5, 7] {
            #expect(prefetcher.fault(region: 0, page: page) == nil)
            #expect(prefetcher.fault(region: 1, page: page + 1) == nil)
        }
        #expect(prefetcher.fault(region: 0, page: 9) == .init(first: 11, stride: 2, count: 8))
        #expect(prefetcher.fault(region: 1, page: 10) == .init(first: 12, stride: 2, count: 8))
    }

    @Test func `nothing is asked for where faults come at random`() {
        var prefetcher = Prefetcher(pageCounts: [1 << 20])
        var state: UInt64 = 88_172_645_463_325_252
        for _ in 0..<10_000 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            _ = prefetcher.fault(region: 0, page: Int(state % (1 << 20)))
        }
        #expect(prefetcher.asked < 100)
    }

    @Test func `it asks for less where much of what it asked for was in vain`() {
        var prefetcher = Prefetcher(pageCounts: [1 << 24])
        /// A reader in order who ends as soon as so many pages are asked for at once.
        ///
        /// - Returns: the most that was asked for at once.
        func stream(at start: Int, endingAt limit: Int) -> Int {
            var page = start
            var longest = 0
            for _ in 0..<20 where longest < limit {
                let ahead = prefetcher.fault(region: 0, page: page)
                longest = max(longest, ahead?.count ?? 0)
                page = ahead.map { $0.first + $0.count } ?? page + 1
            }
            return longest
        }
        #expect(stream(at: 0, endingAt: .max) == 64)
        for number in 1..<200 { _ = stream(at: number * 1000, endingAt: 16) }
        #expect(prefetcher.unused * 3 > prefetcher.asked)
        #expect(stream(at: 9_000_000, endingAt: .max) == 16)
    }
}

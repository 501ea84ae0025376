import LinuxSystem
import Testing

@testable import PageFetcher

/// The policy for restored guests alone: no memory, no sockets.
@Suite struct BlockPrefetchTests {
    private func policy(_ pageCount: Int) -> BlockPrefetch {
        BlockPrefetch(
            streams: [PrefetchBounds(pageCount: pageCount, window: 64)],
            blocks: [PrefetchBounds(pageCount: pageCount, window: 16)]
        )
    }

    @Test func `the fourth fault in a block requests the rest of the block`() {
        var policy = policy(1_000)
        var memory = Faulting()
        // Distances that form no stream.
        for page in [160, 167, 162] { #expect(memory.touch(page, &policy) == []) }
        memory.touch(173, &policy)
        #expect(memory.present == Set((160..<176).map { Faulting.Place(region: 0, page: $0) }))
    }

    @Test func `a reader that touches all pages in no order raises a third of the faults at most`() {
        let pages = 1 << 14
        var policy = policy(pages)
        // An odd factor visits each page once.
        let faults = policy.faults(of: (0..<pages).map { $0 * 7_919 % pages })
        #expect(faults < pages / 3)
    }

    @Test func `a reader that touches few pages in no order causes few requests`() {
        let pages = 1 << 16
        var policy = policy(pages)
        let touched = pages / 16
        var memory = Faulting()
        for page in RandomPages(touched, of: pages) { memory.touch(page, &policy) }
        #expect(memory.present.count < touched * 6 / 5)
    }

    @Test func `the pages of a strided stream do not complete their blocks`() {
        let pages = 1 << 16
        var policy = policy(pages)
        var memory = Faulting()
        for page in stride(from: 0, to: pages, by: 4) { memory.touch(page, &policy) }
        #expect(memory.present.count < pages / 4 * 6 / 5)
    }

    @Test(arguments: [
        PrefetchBounds(pageCount: 8, window: 8),
        PrefetchBounds(PageRange(address: 0, pageSize: 2 << 20, pageCount: 64), window: 16),
    ])
    func `a region that is shorter than a block, and huge pages, have no blocks`(bounds: PrefetchBounds) {
        var policy = BlockPrefetch(streams: [bounds], blocks: [bounds])
        var memory = Faulting()
        for page in [0, 7, 2, 5] { memory.touch(page, &policy) }
        #expect(memory.present.count == 4)
    }
}

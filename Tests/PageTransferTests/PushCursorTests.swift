import HugePages
import LinuxSystem
import OwnThread
import PageProtocol
import Synchronization
import Telemetry
import Testing

@testable import PageServer

/// How the lanes of a push share the memory.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct PushCursorTests {
    private static let chunk = 256

    private func memory(_ pageCounts: [Int], pageSize: Int = 4096) throws -> SentMemory {
        var (regions, shapes): ([MemoryRegion], [RegionShape]) = ([], [])
        for (index, count) in pageCounts.enumerated() {
            regions.append(try MemoryRegion(name: "region\(index)", pageSize: pageSize, pageCount: count))
            shapes.append(
                RegionShape(
                    name: "region\(index)",
                    guestAddress: UInt64(index) << 32,
                    pageSize: UInt32(pageSize),
                    pageCount: UInt64(count)
                )
            )
        }
        return try SentMemory(regions: regions.map { .mapped($0) }, table: RegionTable(shapes), release: nil)
    }

    private func chunk(_ region: Int, _ pages: Range<Int>) -> PushCursor.Chunk {
        PushCursor.Chunk(region: region, pages: pages)
    }

    private func send(_ chunk: PushCursor.Chunk?, of memory: SentMemory) throws {
        let chunk = try #require(chunk)
        memory.claim(chunk.pages, region: chunk.region, as: .pushed)
    }

    private func request(_ page: Int, of memory: SentMemory) -> PagePlace {
        memory.claim(page..<page + 1, region: 0, as: .pushed)
        memory.noteNewest(PageRun(region: 0, count: 1, first: UInt64(page)))
        return memory.behindNewestRequest
    }

    @Test func `a single lane takes each region at once`() throws {
        let memory = try memory([1000, 1, 300])
        let cursor = PushCursor(memory: memory, lanes: 1)
        for region in [0..<1000, 0..<1, 0..<300].enumerated() {
            let taken = cursor.take(0)
            #expect(taken == chunk(region.offset, region.element))
            try send(taken, of: memory)
        }
        #expect(cursor.take(0) == nil)
    }

    @Test func `several lanes take aligned chunks in turn, and none that another lane holds`() throws {
        let memory = try memory([600, 100])
        let cursor = PushCursor(memory: memory, lanes: 4)
        let taken = (0..<4).map { cursor.take($0) }
        #expect(taken == [chunk(0, 0..<256), chunk(0, 256..<512), chunk(0, 512..<600), chunk(1, 0..<100)])
        // Lane 2 has sent its chunk, and every other page is in a chunk of another lane.
        try send(taken[2], of: memory)
        #expect(cursor.take(2) == nil)
        // Lane 0 has sent a part of its chunk, and continues with the rest of it.
        memory.claim(0..<40, region: 0, as: .pushed)
        #expect(cursor.take(0) == chunk(0, 40..<256))
    }

    @Test func `a chunk holds at least one page, however large`() throws {
        try HugePages.with(free: 3) {
            let memory = try memory([3], pageSize: HugePagePool.pageSize)
            let cursor = PushCursor(memory: memory, lanes: 2)
            #expect([0, 1].map { cursor.take($0) } == [chunk(0, 0..<1), chunk(0, 1..<2)])
        }
    }

    @Test func `lanes begin behind the newest request, and wrap around to the rest`() throws {
        let memory = try memory([700])
        _ = request(300, of: memory)
        let cursor = PushCursor(memory: memory, lanes: 2)
        var taken: [PushCursor.Chunk] = []
        for lane in [0, 1, 0, 1] {
            taken.append(try #require(cursor.take(lane)))
            try send(taken.last, of: memory)
        }
        #expect(taken == [chunk(0, 301..<512), chunk(0, 512..<700), chunk(0, 0..<256), chunk(0, 256..<512)])
        #expect(cursor.take(0) == nil)
    }

    @Test func `the lane that finds a near request follows it, and the others after their chunks`() throws {
        let memory = try memory([30_000])
        let cursor = PushCursor(memory: memory, lanes: 2)
        #expect([0, 1].map { cursor.take($0) } == [chunk(0, 0..<256), chunk(0, 256..<512)])
        // The first request is far from the beginning, the second one is near the first.
        #expect(cursor.follow(request(20_000, of: memory), 0) == nil)
        let newest = request(20_010, of: memory)
        #expect(cursor.follow(newest, 0) == chunk(0, 20_011..<20_224))
        #expect(cursor.follow(newest, 1) == nil)
        try send(chunk(0, 256..<512), of: memory)
        #expect(cursor.take(1) == chunk(0, 20_224..<20_480))
    }

    @Test func `a lane that follows into the chunk of another lane takes the next one`() throws {
        let memory = try memory([3000])
        let cursor = PushCursor(memory: memory, lanes: 2)
        #expect([0, 1].map { cursor.take($0) } == [chunk(0, 0..<256), chunk(0, 256..<512)])
        #expect(cursor.follow(request(300, of: memory), 0) == chunk(0, 512..<768))
    }

    @Test(arguments: [2, 4, 64])
    func `threads take every page, and none twice`(lanes: Int) throws {
        let memory = try memory([40_000, 1, 9_000])
        let cursor = PushCursor(memory: memory, lanes: lanes)
        let claimed = Atomic<Int>(0)
        let ended = Atomic<Int>(0)
        let threads = ThreadGroup()
        for lane in 0..<lanes {
            try threads.run("lane") {
                var seen = cursor.firstSeen
                var chunk = cursor.take(lane)
                while let held = chunk {
                    // Some lanes leave a part of their chunk, as a lane does that follows a request.
                    let pages = held.pages.prefix(held.pages.count > 100 && lane % 2 == 0 ? 90 : 256)
                    let before = pages.count { !memory.isUnsent(PagePlace(region: held.region, page: $0)) }
                    claimed.add(pages.count - before, ordering: .relaxed)
                    memory.claim(pages, region: held.region, as: .pushed)
                    if held.region == 0, lane == 0 { memory.noteNewest(PageRun(region: 0, count: 1, first: 17)) }
                    let newest = memory.behindNewestRequest
                    chunk = newest == seen ? cursor.take(lane) : cursor.follow(newest, lane) ?? cursor.take(lane)
                    seen = newest
                }
                if cursor.finish(lane) { ended.add(1, ordering: .relaxed) }
            }
        }
        threads.join()
        // A page that two lanes had claimed would be counted twice.
        #expect(claimed.load(ordering: .relaxed) == 49_001)
        #expect(memory.pagesSent == 49_001)
        #expect(ended.load(ordering: .relaxed) == 1)
    }
}

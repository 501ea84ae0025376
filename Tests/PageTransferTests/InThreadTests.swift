import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import PageFetcher

@Suite("Threads that fetch their own pages", .ownThread, .timeLimit(.minutes(2)))
struct InThreadTests {
    @Test func `faults of several threads in several regions fetch every page`() throws {
        let ferry = try Ferry(pageCounts: [300, 1, 129], inThread: true)
        defer { ferry.end() }
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        for (region, memory) in ferry.arriving.enumerated() {
            for _ in 0..<2 { try ferry.touch(region: region, (0..<memory.pageCount).shuffled()) }
        }
        ferry.waitForReaders()
        #expect(ferry.wrongPages() == [])
        #expect(ferry.waitUntilResident())
        let progress = ferry.destination.progress
        #expect(progress.demand == ferry.pagesTotal)
        #expect(progress.waiting == 0)
        #expect(source.progress.requests == ferry.pagesTotal)
    }

    @Test func `faults and the push together deliver every page`() throws {
        let ferry = try Ferry(pageCounts: [4000, 2000], inThread: true)
        defer { ferry.end() }
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        for region in 0..<2 { try ferry.touch(region: region, (0..<ferry.arriving[region].pageCount).shuffled()) }
        try source.startPush()
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
        let progress = ferry.destination.progress
        #expect(progress.demand + progress.pushed + progress.zero == ferry.pagesTotal)
    }

    @Test func `a waiting thread continues over the next connection, and again over the one after that`() throws {
        let ferry = try Ferry(pageCounts: [200], inThread: true)
        defer { ferry.end() }
        for start in 0..<4 { try ferry.touch(region: 0, [start * 16 + 1, start * 16 + 2]) }
        let (source, _) = try ferry.makeSource()
        source.freeze()
        // A connection on which no one answers, and which breaks.
        let (urgent, bulk) = try ferry.connectToTest()
        #expect(try urgent.stream.receiveFrame()?.kind == .pageRequest)
        urgent.stream.shutdown()
        #expect(ferry.lossAtDestination()?.lane == .urgent)
        withExtendedLifetime(bulk) {}
        ferry.destination.detach()
        try ferry.connect(source)
        ferry.waitForReaders()
        #expect(ferry.destination.progress.pagesResident == 8)
        source.detach()
        ferry.destination.detach()
        try ferry.touch(region: 0, [100])
        let (other, _) = try ferry.makeSource()
        defer { other.detach() }
        other.freeze()
        try ferry.connect(other)
        ferry.waitForReaders()
        #expect(ferry.destination.progress.pagesResident == 9)
    }

    @Test func `a reader continues when the push delivers its page, even if its request is never answered`() throws {
        let ferry = try Ferry(pageCounts: [64], inThread: true)
        defer { ferry.end() }
        let (urgent, bulk) = try ferry.connectToTest()
        try ferry.touch(region: 0, [5, 6])
        for page in [5, 6] as [UInt64] {
            #expect(try urgent.stream.receiveFrame() == .pageRequest(PageRun(region: 0, count: 1, first: page)))
            try bulk.stream.send(.zeroes(PageRun(region: 0, count: 1, first: page)))
        }
        ferry.waitForReaders()
        #expect(ferry.destination.progress.zero == 2)
    }

    @Test func `faults and a push that releases memory deliver every page`() throws {
        let ferry = try Ferry(pageCounts: [4000], inThread: true)
        defer { ferry.end() }
        let (source, _) = try ferry.makeSource(releasesMemory: true)
        defer { source.detach() }
        source.limitPush(bytesPerSecond: 100 << 20)
        try ferry.connect(source)
        source.freeze()
        source.releaseSentMemory()
        for _ in 0..<3 { try ferry.touch(region: 0, (0..<4000).shuffled()) }
        try source.startPush()
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
    }

    @Test func `a page that was not requested closes the lane and is not placed`() throws {
        let ferry = try Ferry(pageCounts: [64], inThread: true)
        defer { ferry.end() }
        let (urgent, bulk) = try ferry.connectToTest()
        try ferry.touch(region: 0, [5])
        #expect(try urgent.stream.receiveFrame() == .pageRequest(PageRun(region: 0, count: 1, first: 5)))
        let wrong = PageRun(region: 0, count: 1, first: 6)
        try urgent.stream.send(.pages(wrong, pageSize: 4096), body: [UInt8](repeating: 7, count: 4096))
        #expect(ferry.lossAtDestination()?.reason.contains("was not requested") == true)
        #expect(ferry.destination.progress.pagesResident == 0)
        withExtendedLifetime(bulk) {}
        // The thread still waits for an honest source.
        ferry.destination.detach()
        let (source, _) = try ferry.makeSource()
        defer { source.detach() }
        source.freeze()
        try ferry.connect(source)
        ferry.waitForReaders()
        #expect(ferry.destination.progress.pagesResident == 1)
    }
}

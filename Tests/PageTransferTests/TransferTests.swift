import Glibc
import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import PageFetcher

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct TransferTests {
    @Test func `faults of several threads in several regions fetch every page`() throws {
        let ferry = try Ferry(pageCounts: [300, 1, 129, 64])
        defer { ferry.end() }
        let (source, events) = try ferry.serve()
        defer { source.detach() }
        for (region, memory) in ferry.arriving.enumerated() {
            // Two threads touch the same pages, in different orders.
            try ferry.touch(region: region, (0..<memory.pageCount).shuffled())
            try ferry.touch(region: region, (0..<memory.pageCount).shuffled())
        }
        ferry.waitForReaders()
        #expect(ferry.wrongPages() == [])
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        let progress = ferry.destination.progress
        #expect(progress.demand == ferry.pagesTotal)
        #expect(progress.pushed + progress.zero == 0)
        #expect(progress.duplicate == 0)
        #expect(progress.waiting == 0)
        #expect(source.progress.requests == ferry.pagesTotal)
        #expect(source.progress.bytesSent == (ferry.pagesTotal - ferry.zeroPages) * Ferry.pageSize)
    }

    @Test(arguments: [1, 3, 4, 1000])
    func `the push alone delivers every page and sends no zero page`(zeroEvery: Int) throws {
        let ferry = try Ferry(pageCounts: [700, 1, 300], zeroEvery: zeroEvery)
        defer { ferry.end() }
        let (source, events) = try ferry.serve()
        defer { source.detach() }
        try source.startPush()
        #expect(events.waitUntilSent())
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
        let progress = ferry.destination.progress
        #expect(progress.demand == 0)
        #expect(progress.zero == ferry.zeroPages)
        #expect(progress.pushed == ferry.pagesTotal - ferry.zeroPages)
        #expect(progress.duplicate == 0)
        #expect(source.progress.bytesSent == (ferry.pagesTotal - ferry.zeroPages) * Ferry.pageSize)
        #expect(source.progress.pagesSent == ferry.pagesTotal)
        #expect(source.progress.zeroPages == ferry.zeroPages)
    }

    @Test func `prefetching keeps ahead of a sequential reader without the push`() throws {
        let ferry = try Ferry(pageCounts: [8000], zeroEvery: 100_000, prefetch: .streams())
        defer { ferry.end() }
        let (source, events) = try ferry.serve()
        defer { source.detach() }
        try ferry.touch(region: 0, Array(0..<8000))
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        #expect(ferry.wrongPages() == [])
        let progress = ferry.destination.progress
        #expect(progress.demand + progress.prefetched + progress.pushed + progress.zero == 8000)
        #expect(progress.prefetched > 4000, "\(progress)")
        #expect(progress.prefetchedUnused <= 64)
    }

    @Test func `each of several threads that go towards each other again and again has a stream`() throws {
        let ferry = try Ferry(pageCounts: [8000], zeroEvery: 100_000, prefetch: .streams())
        defer { ferry.end() }
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        try ferry.touch(region: 0, Array(stride(from: 0, to: 8000, by: 2)))
        try ferry.touch(region: 0, Array(stride(from: 7999, to: 0, by: -2)))
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
        #expect(ferry.destination.progress.prefetched > 4000, "\(ferry.destination.progress)")
    }

    @Test(arguments: [Prefetch.faultAround(), .faultAround(window: 1024)])
    func `a sequential reader gets the pages around a fault`(prefetch: Prefetch) throws {
        let ferry = try Ferry(pageCounts: [8000, 7], zeroEvery: 100_000, prefetch: prefetch)
        defer { ferry.end() }
        let (source, events) = try ferry.serve()
        defer { source.detach() }
        try ferry.touch(region: 0, Array(0..<8000))
        try ferry.touch(region: 1, Array(0..<7))
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        #expect(ferry.wrongPages() == [])
        let progress = ferry.destination.progress
        #expect(progress.demand + progress.prefetched == 8007)
        #expect(progress.prefetched > 4000, "\(progress)")
        #expect(source.progress.requests < 5000)
    }

    @Test(arguments: [Prefetch.none, .faultAround(), .faultAround(window: 1024), .streams(), .streams(window: 1024)])
    func `prefetch, faults and the push together deliver every page`(prefetch: Prefetch) throws {
        let ferry = try Ferry(pageCounts: [4000, 3000], prefetch: prefetch)
        defer { ferry.end() }
        let (source, events) = try ferry.serve()
        defer { source.detach() }
        try ferry.touch(region: 0, Array(0..<4000))
        try ferry.touch(region: 0, (0..<4000).reversed())
        try ferry.touch(region: 1, Array(stride(from: 0, to: 3000, by: 3)))
        try ferry.touch(region: 1, (0..<3000).shuffled())
        try source.startPush()
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        #expect(ferry.wrongPages() == [])
        let progress = ferry.destination.progress
        #expect(progress.demand + progress.prefetched + progress.pushed + progress.zero == ferry.pagesTotal)
    }

    @Test func `faults and the push together deliver every page once and report completion once`() throws {
        let ferry = try Ferry(pageCounts: [4000, 2000])
        defer { ferry.end() }
        let (source, events) = try ferry.serve()
        defer { source.detach() }
        for region in 0..<2 {
            try ferry.touch(region: region, (0..<ferry.arriving[region].pageCount).shuffled())
        }
        try source.startPush()
        // The push may start once on each connection.
        try source.startPush()
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        #expect(ferry.wrongPages() == [])
        let progress = ferry.destination.progress
        #expect(progress.pagesResident == ferry.pagesTotal)
        #expect(progress.demand + progress.pushed + progress.zero == ferry.pagesTotal)
        // A page arrives twice only if it was requested while its pushed copy was in flight.
        #expect(progress.duplicate <= source.progress.requests)
        source.detach()
        ferry.destination.stop()
        #expect(events.all.count { if case .everyPageSent = $0 { true } else { false } } == 1)
        #expect(ferry.destinationEvents.all.count { if case .everyPageResident = $0 { true } else { false } } == 1)
    }

    @Test func `complete memory is unregistered after the stop`() throws {
        let ferry = try Ferry(pageCounts: [16])
        defer { ferry.end() }
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        try source.startPush()
        #expect(ferry.waitUntilResident())
        ferry.destination.stop()
        #expect(
            ferry.destination.memory.userfaultfd.zero(ferry.arriving[0].range.address, byteCount: 4096) == .unmapped
        )
        #expect(ferry.wrongPages() == [])
    }

    @Test func `faults before the first connection are requested once it is made`() throws {
        let ferry = try Ferry(pageCounts: [200])
        defer { ferry.end() }
        for start in 0..<8 { try ferry.touch(region: 0, [start * 16 + 1]) }
        let (source, _) = try ferry.makeSource()
        defer { source.detach() }
        source.freeze()
        try ferry.connect(source)
        ferry.waitForReaders()
        #expect(ferry.destination.progress.pagesResident == 8)
    }

    @Test func `a floor is measured on an urgent lane before it is used`() throws {
        let ferry = try Ferry(pageCounts: [8])
        defer { ferry.end() }
        let (source, _) = try ferry.makeSource()
        defer { source.detach() }
        let connection = try Connection()
        try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
        let urgent = connection.destination.urgent
        // Probes are answered while the workload still runs on the source.
        #expect(try Floor.roundTrip(on: urgent[0].stream) > 0)
        #expect(try Floor.localFault() > 0)
        try ferry.destination.attach(urgent: urgent, bulk: connection.destination.bulk)
        source.freeze()
        try ferry.touch(region: 0, Array(0..<8))
        ferry.waitForReaders()
        #expect(ferry.wrongPages() == [])
    }

    @Test func `a page that was dropped after its arrival reads as zeros and blocks no one`() throws {
        let ferry = try Ferry(pageCounts: [64])
        defer { ferry.end() }
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        try ferry.touch(region: 0, [5, 6])
        ferry.waitForReaders()
        #expect(madvise(ferry.arriving[0].page(5), Ferry.pageSize, MADV_DONTNEED) == 0)
        try ferry.touch(region: 0, [5])
        ferry.waitForReaders()
        #expect(ZeroScan.isZero(ferry.arriving[0].page(5), byteCount: Ferry.pageSize))
        ferry.arriving[0].page(5).storeBytes(of: 1, as: UInt8.self)
        #expect(ferry.destination.progress.pagesResident == 2)
        #expect(source.progress.requests == 2)
    }

    @Test(arguments: [1, 1000])
    func `a run that lies in two mappings is placed`(zeroEvery: Int) throws {
        let ferry = try Ferry(pageCounts: [64], zeroEvery: zeroEvery)
        defer { ferry.end() }
        // madvise(2) on a part of a mapping makes that part a mapping of its own, as a process may do with its memory.
        #expect(madvise(ferry.arriving[0].page(20), 11 * Ferry.pageSize, MADV_DONTFORK) == 0)
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
        #expect(ferry.destination.progress.duplicate == 0)
    }

    @Test func `pages that their process has unregistered from the userfaultfd count as gone, and the push completes`()
        throws
    {
        let ferry = try Ferry(pageCounts: [64])
        defer { ferry.end() }
        try ferry.destination.memory.userfaultfd.unregister(ferry.arriving[0].range)
        let (source, _) = try ferry.serve()
        defer { source.detach() }
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.destination.progress.removed == 64)
    }

    @Test func `a source that sends byte by byte does not extend the floor's measurement`() throws {
        let connection = try Connection()
        let peer = connection.source.urgent[0]
        let trickle = try JoinedThread(name: "trickle") {
            // The pause is the slow peer's behaviour; the test does not wait for a state here.
            while (try? peer.stream.send([0])) != nil { usleep(10_000) }
        }
        let urgent = connection.destination.urgent
        let begin = MonotonicClock.now()
        let error = try #require(throws: SystemError.self) {
            _ = try Floor.roundTrip(on: urgent[0].stream, within: .milliseconds(200))
        }
        #expect("\(error)".contains("timed out"))
        #expect(MonotonicClock.now() - begin < 5_000_000_000)
        urgent[0].stream.shutdown()
        trickle.join()
    }
}

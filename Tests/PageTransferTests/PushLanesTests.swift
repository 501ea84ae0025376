import Glibc
import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import PageFetcher

/// A push over several connections.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct PushLanesTests {
    /// The pages that arrive on each bulk lane.
    private final class Received: Sendable {
        let pages: [EventLog<PageRun>]
        private let threads = ThreadGroup()

        /// Reads the destination's ends of bulk lanes until they close.
        init(_ lanes: [SharedSocket]) throws {
            pages = try lanes.map { _ in try EventLog() }
            for (lane, log) in zip(lanes, pages) {
                try threads.run("drain") {
                    while let frame = try? lane.stream.receiveFrame() {
                        var body = [UInt8](repeating: 0, count: Int(frame.bodyByteCount))
                        guard (try? body.withUnsafeMutableBytes { try lane.stream.receive(exactly: $0) }) == body.count
                        else { return }
                        log.add(frame.run)
                    }
                }
            }
        }

        func join() { threads.join() }
    }

    @Test(arguments: [1, 2, 4, 64])
    func `lanes together deliver every page once`(lanes: Int) throws {
        let ferry = try Ferry(pageCounts: [3000, 1, 1000])
        defer { ferry.end() }
        let (source, events) = try ferry.serve(bulkLanes: lanes)
        defer { source.detach() }
        try source.startPush()
        #expect(events.waitUntilSent())
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
        let progress = ferry.destination.progress
        #expect(progress.duplicate == 0)
        #expect(progress.zero == ferry.zeroPages)
        #expect(progress.pushed == ferry.pagesTotal - ferry.zeroPages)
        #expect(source.progress.bytesSent == (ferry.pagesTotal - ferry.zeroPages) * Ferry.pageSize)
        source.detach()
        #expect(events.all.count { if case .everyPageSent = $0 { true } else { false } } == 1)
    }

    @Test(arguments: [2, 4])
    func `each lane carries runs of chunks that no other lane carries`(lanes: Int) throws {
        let ferry = try Ferry(pageCounts: [8000], zeroEvery: 100_000)
        defer { ferry.end() }
        let (source, events) = try ferry.makeSource()
        let connection = try Connection(bulkLanes: lanes)
        try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulks)
        source.freeze()
        try source.startPush()
        // One lane less cannot hold all pages while nothing is read, so that every lane sends some.
        for lane in connection.destination.bulks {
            #expect(try lane.stream.waitToReceive(before: MonotonicClock.now() + 30_000_000_000))
        }
        let received = try Received(connection.destination.bulks)
        #expect(events.waitUntilSent())
        source.detach()
        received.join()
        var lane = [Int?](repeating: nil, count: 8000 / 256 + 1)
        var total = 0
        for (index, log) in received.pages.enumerated() {
            for run in log.all {
                let chunk = Int(run.first) / 256
                #expect(chunk == (Int(run.first) + Int(run.count) - 1) / 256)
                #expect(lane[chunk] == nil || lane[chunk] == index, "chunk \(chunk) comes on two lanes")
                lane[chunk] = index
                total += Int(run.count)
            }
        }
        #expect(total == 8000)
    }

    @Test func `faults, prefetch and a push over four lanes that releases memory deliver every page`() throws {
        let ferry = try Ferry(pageCounts: [4000, 2000], prefetch: .streams(), faultThreads: 2)
        defer { ferry.end() }
        let before = ferry.regions.map { Array(UnsafeRawBufferPointer(start: $0.base, count: $0.byteCount)) }
        let (source, events) = try ferry.serve(releasesMemory: true, bulkLanes: 4)
        defer { source.detach() }
        source.releaseSentMemory()
        try ferry.touch(region: 0, Array(0..<4000))
        try ferry.touch(region: 0, (0..<4000).shuffled())
        try ferry.touch(region: 1, (0..<2000).shuffled())
        try source.startPush()
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        for (expected, copy) in zip(before, ferry.arriving) {
            #expect(expected == Array(UnsafeRawBufferPointer(start: copy.base, count: copy.byteCount)))
        }
        let progress = ferry.destination.progress
        #expect(progress.demand + progress.prefetched + progress.pushed + progress.zero == ferry.pagesTotal)
        source.detach()
        for region in ferry.regions {
            #expect(!(0..<region.pageCount).contains { MemoryRegion.isPresent(region.page($0)) })
        }
    }

    @Test(arguments: [0, 3])
    func `a lane that breaks ends the link, and the next one brings the rest`(broken: Int) throws {
        let ferry = try Ferry(pageCounts: [8000], zeroEvery: 100_000)
        defer { ferry.end() }
        let (source, events) = try ferry.makeSource()
        defer { source.detach() }
        source.freeze()
        let connection = try Connection(bulkLanes: 4)
        try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulks)
        // The push fills the sockets, and waits: nothing reads them yet.
        try source.startPush()
        connection.destination.bulks[broken].stream.shutdown()
        #expect(try #require(events.loss()).lane == .bulk)
        try ferry.destination.attach(urgent: connection.destination.urgent, bulk: connection.destination.bulks) { _ in }
        ferry.destination.detach()
        source.detach()
        let before = source.progress
        #expect(source.resend(allBut: ferry.destination.received) == 0)
        #expect(source.progress.pagesSent == ferry.destination.progress.pagesResident)
        // Pages that were on the way are unsent again, but what was counted stays counted.
        #expect(before.pushedPages == before.pagesSent - before.pushedZeroPages)
        #expect(before.pagesSent > source.progress.pagesSent)
        #expect(source.progress.pushedPages == before.pushedPages)
        try ferry.connect(source, bulkLanes: 2)
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        #expect(source.progress.pushedPages > ferry.pagesTotal - ferry.zeroPages)
        #expect(ferry.wrongPages() == [])
    }

    @Test func `a lane of the destination that breaks ends the others, with the first reason`() throws {
        let ferry = try Ferry(pageCounts: [64])
        defer { ferry.end() }
        let connection = try Connection(bulkLanes: 4)
        let log = try EventLog<PageFetcher.LaneEvent>()
        try ferry.destination.attach(urgent: connection.destination.urgent, bulk: connection.destination.bulks) {
            log.add($0)
        }
        try connection.source.bulks[2].stream.send([UInt8](repeating: 0x99, count: 64))
        let loss = try #require(log.loss())
        #expect(loss.lane == .bulk && loss.reason.contains("0x9999"), "\(loss)")
        for lane in connection.source.bulks + connection.source.urgent {
            #expect((try? lane.stream.receiveFrame()) == nil)
        }
    }

    @Test(arguments: [1, 4])
    func `one limit holds for all lanes together`(lanes: Int) throws {
        let ferry = try Ferry(pageCounts: [4096], zeroEvery: 100_000)
        defer { ferry.end() }
        let (source, events) = try ferry.serve(bulkLanes: lanes)
        defer { source.detach() }
        source.limitPush(bytesPerSecond: 16 << 20)
        let begin = MonotonicClock.now()
        try source.startPush()
        #expect(events.waitUntilSent())
        let seconds = Double(MonotonicClock.now() - begin) / 1e9
        // 16 MiB; what the lanes send first waits for no rest.
        #expect(seconds > 0.85 && seconds < 5, "\(seconds) s")
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
    }

    @Test func `a limit that is lifted, or a link that ends, wakes every lane that rests`() throws {
        let ferry = try Ferry(pageCounts: [1100], zeroEvery: 100_000)
        defer { ferry.end() }
        let (source, events) = try ferry.serve(bulkLanes: 4)
        // After its first page each lane rests for more than an hour.
        source.limitPush(bytesPerSecond: 1)
        try source.startPush()
        while source.progress.bytesSent < 4 * 4096 { JoinedThread.yield() }
        source.detach()
        #expect(source.resend(allBut: ferry.destination.received) == 0)
        try ferry.connect(source, bulkLanes: 4)
        try source.startPush()
        source.limitPush(bytesPerSecond: 0)
        #expect(events.waitUntilSent())
        #expect(ferry.waitUntilResident())
        source.detach()
    }
}

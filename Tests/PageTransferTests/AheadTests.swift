import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import PageFetcher

/// Prefetch requests for pages that the push may already have under way.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct AheadTests {
    /// A source of one region without zero pages, with the test at the other end of its lanes.
    private struct Served {
        let source: PageServer
        let events: EventLog<PageServer.Event>
        let urgent: SharedSocket
        let bulk: SharedSocket

        init(_ source: PageServer, _ events: EventLog<PageServer.Event>) throws {
            let connection = try Connection()
            try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
            (self.source, self.events) = (source, events)
            (urgent, bulk) = (connection.destination.urgent[0], connection.destination.bulk)
            source.freeze()
        }

        init(pageCount: Int) throws {
            let region = try MemoryRegion(name: "ram", pageCount: pageCount)
            for page in 0..<pageCount { region.page(page).storeBytes(of: 1, as: UInt8.self) }
            let shape = RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: UInt64(pageCount))
            let log = try EventLog<PageServer.Event>()
            let source = try PageServer(regions: [.mapped(region)], table: RegionTable([shape])) { log.add($0) }
            try self.init(source, log)
        }

        /// Sends a request and receives the frames that answer it.
        ///
        /// - Returns: the first `count` frames.
        func answers(_ count: Int, to request: LaneFrame) throws -> [LaneFrame] {
            try urgent.stream.send(request)
            return try (0..<count).map { _ in try next(on: urgent) }
        }

        func next(on lane: SharedSocket) throws -> LaneFrame {
            guard let frame = try lane.stream.receiveFrame() else { throw Missing(what: "a frame") }
            let body = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(frame.bodyByteCount), alignment: 8)
            defer { body.deallocate() }
            guard try lane.stream.receive(exactly: body) == body.count else { throw Missing(what: "pages") }
            return frame
        }
    }

    private func run(_ pages: Range<Int>) -> PageRun {
        PageRun(region: 0, count: UInt32(pages.count), first: UInt64(pages.lowerBound))
    }

    private func pages(_ pages: Range<Int>) -> LaneFrame { .pages(run(pages), pageSize: 4096) }

    @Test func `a source sends a page again for a demand request, but not for a request ahead`() throws {
        let served = try Served(pageCount: 64)
        defer { served.source.detach() }
        try served.source.startPush()
        #expect(served.events.waitUntilSent())
        #expect(try served.answers(1, to: .aheadRequest(run(0..<16))) == [.sent(run(0..<16))])
        #expect(try served.answers(1, to: .pageRequest(run(3..<4))) == [pages(3..<4)])
        // The source answers the probe only after it has counted the pages that it sent.
        #expect(try served.answers(1, to: .probe) == [.probeReply])
        #expect(served.source.progress.bytesSent == 65 * 4096)
    }

    @Test func `a source answers a request ahead with unsent pages, and names the others in SENT`() throws {
        let served = try Served(pageCount: 64)
        defer { served.source.detach() }
        #expect(try served.answers(1, to: .pageRequest(run(4..<6))) == [pages(4..<6)])
        let answers = try served.answers(3, to: .aheadRequest(run(0..<10)))
        #expect(answers == [pages(0..<4), .sent(run(4..<6)), pages(6..<10)])
        // Pages sent for a request ahead count as sent too.
        #expect(try served.answers(1, to: .aheadRequest(run(8..<10))) == [.sent(run(8..<10))])
        #expect(served.source.progress.pagesSent == 10)
    }

    @Test func `after a reconnect, pages that the old link lost do not count as sent`() throws {
        let lost = try Served(pageCount: 16)
        try lost.source.startPush()
        #expect(lost.events.waitUntilSent())
        // The destination has received the first 8 of the 16 pages.
        #expect(lost.source.resend(allBut: [[0xff, 0]]) == 0)
        let served = try Served(lost.source, lost.events)
        defer { served.source.detach() }
        #expect(try served.answers(2, to: .aheadRequest(run(4..<12))) == [.sent(run(4..<8)), pages(8..<12)])
    }

    @Test func `a request ahead for a single page does not redirect the push`() throws {
        let served = try Served(pageCount: 1000)
        defer { served.source.detach() }
        #expect(try served.answers(1, to: .aheadRequest(run(500..<501))) == [pages(500..<501)])
        // The source answers the probe only after it has handled the request.
        #expect(try served.answers(1, to: .probe) == [.probeReply])
        try served.source.startPush()
        #expect(try served.next(on: served.bulk).run.first == 0)
    }

    /// A destination with one sequential reader, which has requested pages ahead; the test plays the source.
    private struct Reading {
        static let ahead = PageRun(region: 0, count: 8, first: 3)
        let ferry: Ferry
        /// The test's ends of the lanes, which are closed together.
        private let lanes: (urgent: SharedSocket, bulk: SharedSocket)
        var urgent: SharedSocket { lanes.urgent }

        /// Answers requests until the reader waits for the third page and its stream has requested the pages after it.
        init(answersAhead: Bool = true) throws {
            ferry = try Ferry(pageCounts: [64], zeroEvery: 1, prefetch: .streams())
            lanes = try ferry.connectToTest(answersAhead: answersAhead)
            try ferry.touch(region: 0, Array(0..<12))
            for page in 0..<3 { try expect(.pageRequest(PageRun(region: 0, count: 1, first: UInt64(page)))) }
            try expect(answersAhead ? .aheadRequest(Self.ahead) : .pageRequest(Self.ahead))
        }

        /// Receives a request, and answers it if it is for a page before the third.
        private func expect(_ request: LaneFrame) throws {
            #expect(try urgent.stream.receiveFrame() == request)
            if request.run.count == 1, request.run.first < 2 { try bring(request.run) }
        }

        func bring(_ run: PageRun) throws { try urgent.stream.send(.zeroes(run)) }

        /// Sends the third page, so that the reader continues to the first page that was requested ahead.
        func bringThirdPage() throws { try bring(PageRun(region: 0, count: 1, first: 2)) }

        /// Waits until `count` pages have been placed and noted, which happens after their readers were woken.
        func waitUntilPlaced(_ count: Int) {
            while ferry.destination.progress.pagesResident < count { JoinedThread.yield() }
        }

        /// Answers each demand request, and leaves requests ahead unanswered.
        func bringWhatIsWaitedFor(upTo last: UInt64) throws {
            while let request = try urgent.stream.receiveFrame() {
                switch request.kind {
                case .aheadRequest: try urgent.stream.send(.sent(request.run))
                default: try bring(request.run)
                }
                if request.kind == .pageRequest, request.run.first == last { return }
            }
        }
    }

    @Test func `a page that was left to the push is requested when a reader waits for it`() throws {
        let reading = try Reading()
        defer { reading.ferry.end() }
        try reading.urgent.stream.send(.sent(Reading.ahead))
        try reading.bringThirdPage()
        try reading.bringWhatIsWaitedFor(upTo: 11)
        reading.ferry.waitForReaders()
        reading.waitUntilPlaced(12)
        #expect(reading.ferry.destination.progress.waiting == 0)
    }

    @Test func `a page is requested at once if a reader already waits for it when SENT arrives`() throws {
        let reading = try Reading()
        defer { reading.ferry.end() }
        try reading.bringThirdPage()
        // The reader has reached a page that was requested ahead, and the page is not requested twice.
        reading.waitUntilPlaced(3)
        while reading.ferry.destination.progress.waiting == 0 { JoinedThread.yield() }
        try reading.urgent.stream.send(.sent(Reading.ahead))
        try reading.bringWhatIsWaitedFor(upTo: 11)
        reading.ferry.waitForReaders()
        reading.waitUntilPlaced(12)
        #expect(reading.ferry.destination.progress.waiting == 0)
    }

    @Test func `a source without the capability gets ordinary requests for pages ahead`() throws {
        let reading = try Reading(answersAhead: false)
        defer { reading.ferry.end() }
        try reading.bring(Reading.ahead)
        try reading.bringThirdPage()
        try reading.bringWhatIsWaitedFor(upTo: 11)
        reading.ferry.waitForReaders()
        reading.waitUntilPlaced(12)
        #expect(reading.ferry.destination.progress.prefetched >= 8)
    }

    @Test func `pages that were left to the push arrive over the next link if the first one breaks`() throws {
        let reading = try Reading()
        let ferry = reading.ferry
        defer { ferry.end() }
        try reading.urgent.stream.send(.sent(Reading.ahead))
        try reading.bringThirdPage()
        // The reader waits for the first of these pages.
        #expect(try reading.urgent.stream.receiveFrame()?.run.first == 3)
        reading.urgent.stream.shutdown()
        #expect(ferry.lossAtDestination()?.lane == .urgent)
        ferry.destination.detach()
        let (source, _) = try ferry.makeSource()
        defer { source.detach() }
        // Freeze before the lanes are joined, since the destination sends requests on them at once.
        source.freeze()
        try ferry.connect(source)
        ferry.waitForReaders()
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
        #expect(ferry.destination.progress.waiting == 0)
    }

    @Test func `a SENT is accepted only once for each request ahead`() throws {
        let reading = try Reading()
        defer { reading.ferry.end() }
        for _ in 0..<2 { try reading.urgent.stream.send(.sent(Reading.ahead)) }
        let loss = try #require(reading.ferry.lossAtDestination())
        #expect(loss.lane == .urgent)
        #expect(loss.reason == "the peer answered SENT for a \(Reading.ahead), which was not prefetched")
    }
}

import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import PageFetcher

/// The order in which a source pushes, seen by the test as the destination.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct PushOrderTests {
    /// A page of a region.
    private struct Place: Hashable {
        var region: Int
        var page: Int
    }

    /// A source, and the destination's ends of its lanes.
    private struct Pushing {
        let source: PageServer
        let events: EventLog<PageServer.Event>
        let regions: [MemoryRegion]
        var urgent: SharedSocket
        var bulk: SharedSocket

        init(pageCounts: [Int], zeroEvery: Int = 1_000_000) throws {
            var regions: [MemoryRegion] = []
            var shapes: [RegionShape] = []
            for (index, count) in pageCounts.enumerated() {
                let region = try MemoryRegion(name: "region\(index)", pageCount: count)
                for page in 0..<count where page % zeroEvery != zeroEvery - 1 {
                    region.page(page).storeBytes(of: UInt64(page) + 1, as: UInt64.self)
                }
                regions.append(region)
                let address = shapes.reduce(0) { $0 + $1.pageCount * 4096 }
                shapes.append(
                    RegionShape(
                        name: region.name,
                        guestAddress: address,
                        pageSize: 4096,
                        pageCount: UInt64(count)
                    )
                )
            }
            self.regions = regions
            let log = try EventLog<PageServer.Event>()
            events = log
            source = try PageServer(regions: regions.map { .mapped($0) }, table: RegionTable(shapes)) { log.add($0) }
            (urgent, bulk) = try Pushing.join(source)
            source.freeze()
        }

        private static func join(_ source: PageServer) throws -> (SharedSocket, SharedSocket) {
            let connection = try Connection()
            try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
            return (
                connection.destination.urgent[0], connection.destination.bulk
            )
        }

        /// Joins the source again, after it has learned which pages were received.
        mutating func rejoin(received: Set<Place>) throws {
            source.detach()
            let bitmaps = try regions.enumerated().map { index, region in
                let bitmap = try PageBitmap(pageCount: region.pageCount)
                for place in received where place.region == index { bitmap.insert(place.page) }
                return bitmap.bytes(of: 0..<region.pageCount)
            }
            #expect(source.resend(allBut: bitmaps) == 0)
            (urgent, bulk) = try Pushing.join(source)
        }

        /// Requests a page and waits for it.
        func request(_ place: Place) throws {
            let run = PageRun(region: UInt32(place.region), count: 1, first: UInt64(place.page))
            try urgent.stream.send(.pageRequest(run))
            guard try next(on: urgent) == [place] else { throw Missing(what: "page \(place)") }
            // The source answers the probe only after it has handled the request.
            try urgent.stream.send(.probe)
            _ = try next(on: urgent)
        }

        /// The pages of the next frame on a lane.
        func next(on lane: SharedSocket) throws -> [Place] {
            guard let frame = try lane.stream.receiveFrame() else { throw Missing(what: "a frame") }
            let body = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(frame.bodyByteCount), alignment: 8)
            defer { body.deallocate() }
            guard try lane.stream.receive(exactly: body) == body.count else { throw Missing(what: "pages") }
            let first = Int(frame.run.first)
            if frame.kind == .pages {
                for index in 0..<Int(frame.run.count) {
                    let word = body.load(fromByteOffset: index * 4096, as: UInt64.self)
                    guard word == UInt64(first + index) + 1 else { throw Missing(what: "the content of \(frame.run)") }
                }
            }
            return (first..<first + Int(frame.run.count)).map { Place(region: Int(frame.run.region), page: $0) }
        }

        /// The next `count` pages of the push, in the order of their arrival.
        func pushed(_ count: Int) throws -> [Place] {
            var places: [Place] = []
            while places.count < count { places += try next(on: bulk) }
            return places
        }
    }

    private func places(_ region: Int, _ pages: some Sequence<Int>) -> [Place] {
        pages.map { Place(region: region, page: $0) }
    }

    @Test func `without a request, the push sends pages in order, once each`() throws {
        let pushing = try Pushing(pageCounts: [700, 1, 300])
        defer { pushing.source.detach() }
        try pushing.source.startPush()
        #expect(try pushing.pushed(1001) == places(0, 0..<700) + places(1, 0..<1) + places(2, 0..<300))
        #expect(pushing.events.waitUntilSent())
    }

    @Test func `the push continues after the latest request, and wraps around to the rest`() throws {
        let pushing = try Pushing(pageCounts: [700, 300])
        defer { pushing.source.detach() }
        try pushing.request(Place(region: 0, page: 456))
        try pushing.source.startPush()
        #expect(try pushing.pushed(999) == places(0, 457..<700) + places(1, 0..<300) + places(0, 0..<456))
        #expect(pushing.events.waitUntilSent())
        #expect(pushing.source.progress.bytesSent == 1000 * 4096)
    }

    @Test func `after a region the push continues with the next, and after the last with the first`() throws {
        for (region, then) in [(0, [1, 2, 0]), (1, [2, 0, 1]), (2, [0, 1, 2])] {
            let pushing = try Pushing(pageCounts: [70, 1, 30])
            defer { pushing.source.detach() }
            let last = pushing.regions[region].pageCount - 1
            try pushing.request(Place(region: region, page: last))
            try pushing.source.startPush()
            let all = then.flatMap { index in
                places(index, 0..<pushing.regions[index].pageCount - (index == region ? 1 : 0))
            }
            #expect(try pushing.pushed(100) == all, "after the end of region \(region)")
            #expect(pushing.events.waitUntilSent())
        }
    }

    @Test(arguments: [1_000_000, 3])
    func `a push that is under way moves to the place of the latest request`(zeroEvery: Int) throws {
        // Far more pages than the two sockets hold.
        let pageCount = 30_000
        let pushing = try Pushing(pageCounts: [pageCount, 100], zeroEvery: zeroEvery)
        defer { pushing.source.detach() }
        try pushing.source.startPush()
        var came = try pushing.next(on: pushing.bulk)
        #expect(came.first == Place(region: 0, page: 0))
        var requested: [Place] = []
        // Every second page, downwards, so that the page after a request was never requested before.
        while came.allSatisfy({ $0.page < 20_000 }), requested.count < 400 {
            let place = Place(region: 0, page: 25_000 - 2 * requested.count)
            try pushing.request(place)
            requested.append(place)
            for _ in 0..<64 where came.allSatisfy({ $0.page < 20_000 }) { came += try pushing.next(on: pushing.bulk) }
        }
        let turn = try #require(came.firstIndex { $0.page > 20_000 })
        #expect(turn < 20_000)
        #expect(requested.contains { Place(region: 0, page: $0.page + 1) == came[turn] }, "\(came[turn])")
        came += try pushing.pushed(pageCount + 100 - requested.count - came.count)
        #expect(came[..<turn] == places(0, 0..<turn)[...])
        #expect(Set(came).union(requested).count == pageCount + 100)
        #expect(came.count + requested.count == pageCount + 100)
        #expect(pushing.events.waitUntilSent())
    }

    @Test func `requests far from each other do not fragment the push`() throws {
        let pageCount = 20_000
        let pushing = try Pushing(pageCounts: [pageCount])
        defer { pushing.source.detach() }
        try pushing.source.startPush()
        var came = try pushing.next(on: pushing.bulk)
        // No two requests are within 1024 pages of each other.
        let requested = (1...18).map { $0 * 7 % 19 * 1050 }
        for page in requested {
            try pushing.request(Place(region: 0, page: page))
            came += try pushing.next(on: pushing.bulk)
        }
        // A page that was already pushed when it was requested arrives here too.
        while came.last?.page != pageCount - 1 { came += try pushing.next(on: pushing.bulk) }
        #expect(zip(came, came.dropFirst()).allSatisfy { $0.page < $1.page })
        #expect(Set(came).union(places(0, requested)).count == pageCount)
    }

    @Test func `the push does not follow requests ahead`() throws {
        let pushing = try Pushing(pageCounts: [1000])
        defer { pushing.source.detach() }
        try pushing.urgent.stream.send(.pageRequest(PageRun(region: 0, count: 16, first: 500)))
        #expect(try pushing.next(on: pushing.urgent) == places(0, 500..<516))
        try pushing.source.startPush()
        #expect(try pushing.pushed(984) == places(0, 0..<500) + places(0, 516..<1000))
    }

    @Test func `with requests all over the memory, the push omits no page and sends none twice`() throws {
        let pageCount = 20_000
        let pushing = try Pushing(pageCounts: [pageCount])
        defer { pushing.source.detach() }
        try pushing.source.startPush()
        var requested: Set<Place> = []
        var came: [Place] = []
        for page in RandomPages(200, of: pageCount) {
            let place = Place(region: 0, page: page)
            try pushing.request(place)
            requested.insert(place)
            if came.count + requested.count < pageCount / 2 { came += try pushing.next(on: pushing.bulk) }
        }
        while !requested.union(came).isSuperset(of: places(0, 0..<pageCount)) {
            came += try pushing.next(on: pushing.bulk)
        }
        #expect(Set(came).count == came.count)
        #expect(pushing.events.waitUntilSent())
        #expect(pushing.source.progress.pagesSent == pageCount)
    }

    @Test func `after a recovery, the push sends the lost pages again, beginning at the newest request`() throws {
        var pushing = try Pushing(pageCounts: [500, 500])
        defer { pushing.source.detach() }
        try pushing.request(Place(region: 1, page: 99))
        try pushing.source.startPush()
        _ = try pushing.pushed(999)
        #expect(pushing.events.waitUntilSent())
        let lost = places(0, 10..<20) + places(1, 90..<110) + places(1, 499..<500)
        try pushing.rejoin(received: Set(places(0, 0..<500) + places(1, 0..<500)).subtracting(lost))
        #expect(pushing.source.progress.pagesSent == 1000 - lost.count)
        try pushing.source.startPush()
        #expect(
            try pushing.pushed(lost.count)
                == places(1, 100..<110) + places(1, 499..<500) + places(0, 10..<20) + places(1, 90..<100)
        )
        pushing.source.detach()
        #expect(pushing.source.progress.pagesSent == 1000)
        #expect(pushing.events.all.count { if case .everyPageSent = $0 { true } else { false } } == 2)
    }
}

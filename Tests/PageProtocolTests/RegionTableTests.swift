import PageProtocol
import Testing

@Suite struct RegionTableTests {
    private let table: RegionTable

    init() throws {
        table = try RegionTable([
            RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: 1000),
            RegionShape(name: "huge", guestAddress: 1 << 40, pageSize: 2 << 20, pageCount: 4),
        ])
    }

    @Test func aRunKnowsWhereItLies() throws {
        let run = try table.extent(of: PageRun(region: 0, count: 2, first: 998))
        #expect(run.offset == 998 * 4096)
        #expect(run.byteCount == 8192)
        let huge = try table.extent(of: PageRun(region: 1, count: 1, first: 3))
        #expect(huge.offset == 3 * (2 << 20))
        #expect(huge.byteCount == 2 << 20)
        #expect(table.count == 2)
        #expect(table.pageSize(ofRegion: 1) == 2 << 20)
        #expect(table.pageCount(ofRegion: 0) == 1000)
        #expect(table.shapes.map(\.name) == ["ram", "huge"])
    }

    @Test(arguments: [
        PageRun(region: 0, count: 0, first: 0), PageRun(region: 0, count: 3, first: 998),
        PageRun(region: 0, count: 1, first: 1000), PageRun(region: 0, count: 1001, first: 0),
        PageRun(region: 0, count: 1, first: .max), PageRun(region: 0, count: .max, first: .max),
        PageRun(region: 0, count: .max, first: 0), PageRun(region: 0, count: 2, first: .max - 1),
    ])
    func aRunOutsideItsRegionIsRefused(_ run: PageRun) {
        let refusal = ProtocolError.runOutOfRange(run: run, pageCount: 1000)
        #expect(throws: refusal) { try table.extent(of: run) }
        #expect(throws: refusal) { try table.extent(of: .pageRequest(run)) }
        #expect(throws: refusal) { try table.extent(of: .zeroes(run)) }
    }

    @Test(arguments: [UInt32(2), 3, 1 << 31, .max])
    func aRegionThatWasNotAnnouncedIsRefused(_ region: UInt32) {
        let run = PageRun(region: region, count: 1, first: 0)
        #expect(throws: ProtocolError.unknownRegion(run: run, regionCount: 2)) { try table.extent(of: run) }
        #expect(throws: ProtocolError.unknownRegion(run: run, regionCount: 2)) {
            try table.extent(of: .pages(run, pageSize: 4096))
        }
    }

    @Test func aFrameHoldsAtMostOneMebibyteOrOneLargerPage() throws {
        let most = PageRun(region: 0, count: 256, first: 0)
        #expect(try table.extent(of: .pages(most, pageSize: 4096)).byteCount == 1 << 20)
        #expect(try table.extent(of: .pageRequest(most)).byteCount == 1 << 20)
        let more = PageRun(region: 0, count: 257, first: 0)
        #expect(throws: ProtocolError.runTooLong(frame: .pages, run: more, maxCount: 256)) {
            try table.extent(of: .pages(more, pageSize: 4096))
        }
        for (kind, frame) in [
            (FrameKind.pageRequest, LaneFrame.pageRequest(more)), (.aheadRequest, .aheadRequest(more)),
            (.sent, .sent(more)),
        ] {
            #expect(throws: ProtocolError.runTooLong(frame: kind, run: more, maxCount: 256)) {
                try table.extent(of: frame)
            }
        }
        let huge = PageRun(region: 1, count: 2, first: 0)
        #expect(throws: ProtocolError.runTooLong(frame: .pages, run: huge, maxCount: 1)) {
            try table.extent(of: .pages(huge, pageSize: 2 << 20))
        }
        #expect(try table.extent(of: .zeroes(PageRun(region: 0, count: 1000, first: 0))).byteCount == 4_096_000)
    }

    @Test func asManyBytesFollowAsTheRunHas() {
        let run = PageRun(region: 1, count: 1, first: 0)
        #expect(throws: ProtocolError.pagesLength(run: run, found: 4096, expected: 2 << 20)) {
            try table.extent(of: .pages(run, pageSize: 4096))
        }
    }

    @Test func aProbeHasNothingToLookUp() throws {
        #expect(try table.extent(of: .probe).byteCount == 0)
        #expect(try table.extent(of: .probeReply).byteCount == 0)
    }

    @Test func aRunOfLargePagesHoldsAtLeastOne() {
        #expect(PageRun.maxCount(pageSize: 4096) == 256)
        #expect(PageRun.maxCount(pageSize: 1 << 20) == 1)
        #expect(PageRun.maxCount(pageSize: 1 << 30) == 1)
    }
}

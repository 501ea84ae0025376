import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import PageFetcher

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct MemoryReleaseTests {
    private func presentPages(_ region: MemoryRegion) -> Int {
        (0..<region.pageCount).count { MemoryRegion.isPresent(region.page($0)) }
    }

    /// A source that may release memory, with the test at the other end of its lanes.
    private final class Served: Sendable {
        let region: MemoryRegion
        let source: PageServer
        let events: EventLog<PageServer.Event>
        let urgent: SharedSocket
        let bulk: SharedSocket

        init(pageCount: Int) throws {
            region = try MemoryRegion(name: "ram", pageCount: pageCount)
            for page in 0..<pageCount { region.page(page).storeBytes(of: UInt8(page & 127 + 1), as: UInt8.self) }
            let shape = RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: UInt64(pageCount))
            let log = try EventLog<PageServer.Event>()
            events = log
            source = try PageServer(regions: [.mapped(region)], table: RegionTable([shape]), releasesMemory: true) {
                log.add($0)
            }
            let connection = try Connection()
            try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
            urgent = connection.destination.urgent[0]
            bulk = connection.destination.bulk
            source.freeze()
        }

        /// Reads everything that the push sends.
        func drain() throws {
            var left = region.pageCount
            while left > 0, let frame = try bulk.stream.receiveFrame() {
                left -= Int(frame.run.count)
                var body = [UInt8](repeating: 0, count: Int(frame.bodyByteCount))
                _ = try body.withUnsafeMutableBytes { try bulk.stream.receive(exactly: $0) }
            }
        }
    }

    @Test func `memory is kept until the workload runs elsewhere, and is released then`() throws {
        let served = try Served(pageCount: 300)
        defer { served.source.detach() }
        try served.source.startPush()
        try served.drain()
        #expect(served.events.waitUntilSent())
        #expect(presentPages(served.region) == 300)
        served.source.releaseSentMemory()
        #expect(presentPages(served.region) == 0)
    }

    @Test func `a late request for a released page is not answered, and other requests are`() throws {
        let served = try Served(pageCount: 300)
        defer { served.source.detach() }
        served.source.releaseSentMemory()
        try served.source.startPush()
        try served.drain()
        #expect(served.events.waitUntilSent())
        #expect(presentPages(served.region) == 0)
        try served.urgent.stream.send(.pageRequest(PageRun(region: 0, count: 3, first: 5)))
        try served.urgent.stream.send(.probe)
        #expect(try served.urgent.stream.receiveFrame()?.kind == .probeReply)
    }

    @Test func `faults and a push that releases memory deliver every page unchanged`() throws {
        let ferry = try Ferry(pageCounts: [4000, 2000])
        defer { ferry.end() }
        let before = ferry.regions.map { Array(UnsafeRawBufferPointer(start: $0.base, count: $0.byteCount)) }
        let (source, events) = try ferry.serve(releasesMemory: true)
        defer { source.detach() }
        source.releaseSentMemory()
        for region in 0..<2 {
            for _ in 0..<2 { try ferry.touch(region: region, (0..<ferry.arriving[region].pageCount).shuffled()) }
        }
        try source.startPush()
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        for (expected, copy) in zip(before, ferry.arriving) {
            #expect(expected == Array(UnsafeRawBufferPointer(start: copy.base, count: copy.byteCount)))
        }
        source.detach()
        #expect(ferry.regions.map(presentPages) == [0, 0])
    }

    @Test func `pages that were released and never arrived are counted, and no page is sent again`() throws {
        let served = try Served(pageCount: 300)
        served.source.releaseSentMemory()
        try served.source.startPush()
        try served.drain()
        #expect(served.events.waitUntilSent())
        served.source.detach()
        var received = [UInt8](repeating: 0xff, count: 38)
        received[37] = 0x0f
        #expect(served.source.resend(allBut: [received]) == 0)
        received[3] = 0xfa
        #expect(served.source.resend(allBut: [received]) == 2)
        #expect(served.source.progress.pagesSent == 300)
    }

    @Test func `pages that were not released are sent again over the next connection`() throws {
        let served = try Served(pageCount: 300)
        served.source.releaseSentMemory()
        served.source.detach()
        #expect(served.source.resend(allBut: [[UInt8](repeating: 0, count: 38)]) == 0)
        #expect(served.source.progress.pagesSent == 0)
        #expect(presentPages(served.region) == 300)
    }
}

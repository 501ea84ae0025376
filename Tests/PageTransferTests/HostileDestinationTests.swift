import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct HostileDestinationTests {
    /// A source with the test at the other end of its lanes.
    private final class Served: Sendable {
        let source: PageServer
        let events: EventLog<PageServer.Event>
        let urgent: SharedSocket
        let bulk: SharedSocket

        init(pageCount: Int = 8) throws {
            let region = try MemoryRegion(name: "ram", pageCount: pageCount)
            for page in 0..<pageCount { region.page(page).storeBytes(of: UInt8(page + 1), as: UInt8.self) }
            let shape = RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: UInt64(pageCount))
            let log = try EventLog<PageServer.Event>()
            events = log
            source = try PageServer(regions: [.mapped(region)], table: RegionTable([shape])) { log.add($0) }
            let connection = try Connection()
            try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulk)
            urgent = connection.destination.urgent[0]
            bulk = connection.destination.bulk
        }
    }

    @Test func `a request before the switchover closes the lane with the reason`() throws {
        let served = try Served()
        defer { served.source.detach() }
        let run = PageRun(region: 0, count: 1, first: 3)
        try served.urgent.stream.send(.pageRequest(run))
        let loss = try #require(served.events.loss())
        #expect(loss.lane == .urgent)
        #expect(loss.reason == "the peer asked for a \(run) before the workload was stopped")
        #expect(try served.urgent.stream.receiveFrame() == nil)
        #expect(served.source.progress.bytesSent == 0)
    }

    @Test func `a request after the workload was taken back is refused`() throws {
        let served = try Served()
        defer { served.source.detach() }
        served.source.freeze()
        served.source.thaw()
        try served.urgent.stream.send(.pageRequest(PageRun(region: 0, count: 1, first: 3)))
        #expect(served.events.loss()?.lane == .urgent)
        #expect(served.source.progress.bytesSent == 0)
    }

    @Test(arguments: [
        PageRun(region: 0, count: 1, first: 8), PageRun(region: 0, count: 9, first: 0),
        PageRun(region: 0, count: .max, first: .max), PageRun(region: 1, count: 1, first: 0),
        PageRun(region: .max, count: 1, first: 0), PageRun(region: 0, count: 0, first: 0),
    ])
    func `a request for pages outside the regions closes the lane`(run: PageRun) throws {
        for request in [LaneFrame.pageRequest(run), .aheadRequest(run)] {
            let served = try Served()
            defer { served.source.detach() }
            served.source.freeze()
            try served.urgent.stream.send(request)
            let loss = try #require(served.events.loss())
            #expect(loss.lane == .urgent)
            #expect(loss.reason.contains("region \(run.region)"))
            #expect(served.source.progress.bytesSent == 0)
        }
    }

    @Test(arguments: [
        LaneFrame.zeroes(PageRun(region: 0, count: 1, first: 0)), .sent(PageRun(region: 0, count: 1, first: 0)),
        .probeReply,
    ])
    func `a frame that only a source may send closes the lane`(frame: LaneFrame) throws {
        let served = try Served()
        defer { served.source.detach() }
        served.source.freeze()
        try served.urgent.stream.send(frame, body: [UInt8](repeating: 0, count: Int(frame.bodyByteCount)))
        #expect(try #require(served.events.loss()).reason.contains("which a destination never sends"))
    }

    @Test func `random bytes close the lane`() throws {
        let served = try Served()
        defer { served.source.detach() }
        served.source.freeze()
        try served.urgent.stream.send((0..<999).map { UInt8(truncatingIfNeeded: $0 &* 83 &+ 17) })
        #expect(served.events.loss()?.lane == .urgent)
        #expect(try served.urgent.stream.receiveFrame() == nil)
    }

    @Test func `a request that arrives in two halves is answered as one`() throws {
        let served = try Served()
        defer { served.source.detach() }
        served.source.freeze()
        var bytes = [UInt8](repeating: 0, count: 2 * LaneFrame.encodedByteCount)
        bytes.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            LaneFrame.probe.encode(into: base)
            LaneFrame.pageRequest(PageRun(region: 0, count: 2, first: 6))
                .encode(into: base + LaneFrame.encodedByteCount)
        }
        try served.urgent.stream.send(Array(bytes.prefix(31)))
        #expect(try served.urgent.stream.receiveFrame() == .probeReply)
        var body = [UInt8](repeating: 9, count: 4096)
        #expect(try body.withUnsafeMutableBytes { try served.urgent.stream.receive(exactly: $0) } == 4096)
        try served.urgent.stream.send(Array(bytes.dropFirst(31)))
        #expect(
            try served.urgent.stream.receiveFrame() == .pages(PageRun(region: 0, count: 2, first: 6), pageSize: 4096)
        )
        #expect(try body.withUnsafeMutableBytes { try served.urgent.stream.receive(exactly: $0) } == 4096)
        #expect(body[0] == 7)
    }

    @Test func `a destination that sends requests and never reads blocks no one else`() throws {
        let served = try Served(pageCount: 200)
        served.source.freeze()
        try served.source.startPush()
        // Far more answers than the sockets' buffers hold, so that the answering thread blocks.
        let asker = try JoinedThread(name: "ask") {
            while (try? served.urgent.stream.send(.pageRequest(PageRun(region: 0, count: 200, first: 0)))) != nil {}
        }
        served.source.detach()
        asker.join()
        #expect(served.events.loss() != nil)
    }
}

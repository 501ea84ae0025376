import LinuxSystem
import OwnThread
import PageProtocol
import Testing

@testable import DestinationAgent

/// What a peer can have a destination work is bounded by what it sends, and ends with its lane.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct FloodTests {
    /// ZEROES for the whole of region 0, again and again.
    private func zeroes(pageCount: Int, times: Int) -> [UInt8] {
        var frame = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        let run = PageRun(region: 0, count: UInt32(pageCount), first: 0)
        frame.withUnsafeMutableBytes { if let base = $0.baseAddress { LaneFrame.zeroes(run).encode(into: base) } }
        return Array(repeatElement(frame, count: times).joined())
    }

    @Test func `zeros that are sent for a whole region again and again end their lane soon`() throws {
        let pageCount = 1 << 15
        let ferry = try Ferry(pageCounts: [pageCount], zeroEvery: 1)
        defer { ferry.end() }
        let peer = try ferry.connectToTest()
        let begin = MonotonicClock.now()
        // 1 MiB of frames; the lane may be gone before all of them have left.
        try? peer.bulk.stream.send(zeroes(pageCount: pageCount, times: 40_960))
        let loss = try #require(ferry.lossAtDestination())
        #expect(loss.lane == .bulk)
        #expect(loss.reason.contains("more often than"))
        ferry.destination.detach()
        #expect(MonotonicClock.now() - begin < 10_000_000_000)
        #expect(ferry.destination.isComplete)
    }

    @Test func `a lane that is ended stops in the midst of zeros`() throws {
        // 8 GiB, of which some pages are placed before the lane ends.
        let pageCount = 1 << 21
        let ferry = try Ferry(pageCounts: [pageCount], zeroEvery: 1)
        defer { ferry.end() }
        let peer = try ferry.connectToTest()
        try peer.bulk.stream.send(zeroes(pageCount: pageCount, times: 1))
        while ferry.destination.progress.zero == 0 { JoinedThread.yield() }
        let begin = MonotonicClock.now()
        ferry.destination.detach()
        #expect(MonotonicClock.now() - begin < 1_000_000_000)
        #expect(!ferry.destination.isComplete)
    }
}

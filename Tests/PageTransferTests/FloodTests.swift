import Compression
import LinuxSystem
import OwnThread
import PageProtocol
import Testing

@testable import PageFetcher

/// A destination's work for a peer is bounded by the bytes that the peer sends, and ends with the peer's lane.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct FloodTests {
    /// Frames of ZEROES for the whole of region 0, `times` times.
    private func zeroes(pageCount: Int, times: Int) -> [UInt8] {
        var frame = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        let run = PageRun(region: 0, count: UInt32(pageCount), first: 0)
        frame.withUnsafeMutableBytes { if let base = $0.baseAddress { LaneFrame.zeroes(run).encode(into: base) } }
        return Array(repeatElement(frame, count: times).joined())
    }

    @Test func `a lane is closed soon if it carries ZEROES for a whole region again and again`() throws {
        let pageCount = 1 << 15
        let ferry = try Ferry(pageCounts: [pageCount], zeroEvery: 1)
        defer { ferry.end() }
        let peer = try ferry.connectToTest()
        let begin = MonotonicClock.now()
        // 1 MiB of frames; the destination may close the lane before it has read all of them.
        try? peer.bulk.stream.send(zeroes(pageCount: pageCount, times: 40_960))
        let loss = try #require(ferry.lossAtDestination())
        #expect(loss.lane == .bulk)
        #expect(loss.reason.contains("more often than"))
        ferry.destination.detach()
        #expect(MonotonicClock.now() - begin < 10_000_000_000)
        #expect(ferry.destination.isComplete)
    }

    @Test func `a lane is closed soon if it carries compressed pages that cost few bytes again and again`() throws {
        let pages = 256
        let ferry = try Ferry(pageCounts: [pages], zeroEvery: 1)
        defer { ferry.end() }
        let peer = try ferry.connectToTest()
        let content = [UInt8](repeating: 7, count: pages * 4096)
        let compressor = Compressor([.zstd])
        var body = [UInt8](repeating: 0, count: content.count)
        let length = try #require(
            content.withUnsafeBytes { content in
                body.withUnsafeMutableBytes { compressor.compress(content, by: .zstd, into: $0) }
            }
        )
        let run = PageRun(region: 0, count: UInt32(pages), first: 0)
        var frame = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        frame.withUnsafeMutableBytes {
            if let base = $0.baseAddress {
                LaneFrame.compressed(run, by: .zstd, byteCount: length).encode(into: base)
            }
        }
        frame += body.prefix(length)
        // The destination may close the lane before it has read all frames.
        try? peer.bulk.stream.send(Array(repeatElement(frame, count: 10_000).joined()))
        let loss = try #require(ferry.lossAtDestination())
        #expect(loss.lane == .bulk && loss.reason.contains("more often than"))
    }

    @Test func `a lane that is closed stops placing zeros at once`() throws {
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

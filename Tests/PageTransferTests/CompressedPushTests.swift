import Compression
import Glibc
import HugePages
import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import LinuxSystem
@testable import PageFetcher

/// Pushes that are compressed, from a source to a destination.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct CompressedPushTests {
    /// Fills every second page of the source with bytes that do not shrink, if `isMixed`; else all of them.
    private func fillRandom(_ ferry: Ferry, isMixed: Bool = false) {
        var generator = SystemRandomNumberGenerator()
        for region in ferry.regions {
            for page in 0..<region.pageCount where !isMixed || page % 128 >= 64 {
                for offset in stride(from: 0, to: region.pageSize, by: 8) {
                    region.page(page).storeBytes(of: generator.next(), toByteOffset: offset, as: UInt64.self)
                }
            }
        }
    }

    /// Pushes all pages, and checks that they have arrived.
    private func push(_ ferry: Ferry, _ compression: PushCompression) throws -> PageServer.Progress {
        let (source, events) = try ferry.serve(compression: compression)
        defer { source.detach() }
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        #expect(ferry.wrongPages() == [])
        #expect(ferry.destination.progress.duplicate == 0)
        return source.progress
    }

    @Test(arguments: [PushCompression.lz4, .zstd], [1, 4, 1000])
    func `pages that shrink are sent compressed, and arrive as they were`(
        compression: PushCompression,
        zeroEvery: Int
    ) throws {
        let ferry = try Ferry(pageCounts: [700, 1, 300], zeroEvery: zeroEvery)
        defer { ferry.end() }
        let progress = try push(ferry, compression)
        let bytes = (ferry.pagesTotal - ferry.zeroPages) * Ferry.pageSize
        #expect(ferry.destination.progress.zero == ferry.zeroPages)
        #expect(progress.compressed.bytesBefore == bytes)
        #expect(progress.bytesSent == progress.compressed.bytesAfter)
        guard bytes > 0 else { return }
        #expect(progress.compressed.codec?.rawValue == compression.rawValue)
        #expect(progress.bytesSent < bytes / 3 * 2)
        #expect(progress.compressed.processorNanoseconds > 0)
        #expect(progress.compressed.runsShrunk > 0)
    }

    @Test(arguments: [PushCompression.lz4, .zstd])
    func `pages that do not shrink are sent as they are, and most are not even tried`(
        compression: PushCompression
    ) throws {
        let ferry = try Ferry(pageCounts: [4096])
        defer { ferry.end() }
        fillRandom(ferry)
        let progress = try push(ferry, compression)
        #expect(progress.bytesSent == 4096 * Ferry.pageSize)
        #expect(progress.compressed.bytesBefore == 0 && progress.compressed.codec == nil)
        #expect(progress.compressed.runsUnshrunk == 8 + (4096 / 64 - 8) / 16)
        #expect(progress.compressed.runsSkipped == 4096 / 64 - progress.compressed.runsUnshrunk)
    }

    @Test(arguments: [PushCompression.lz4, .zstd])
    func `runs that shrink and runs that do not may alternate`(compression: PushCompression) throws {
        let ferry = try Ferry(pageCounts: [4096], zeroEvery: 100_000)
        defer { ferry.end() }
        fillRandom(ferry, isMixed: true)
        let progress = try push(ferry, compression)
        #expect(progress.compressed.runsShrunk == 32)
        #expect(progress.compressed.runsUnshrunk == 32)
    }

    @Test func `a codec that the destination does not inflate is not used`() throws {
        for (inflated, isUsed) in [(Set<Codec>(), false), ([.lz4], false), ([.zstd], true)] {
            let ferry = try Ferry(pageCounts: [256], zeroEvery: 100_000)
            defer { ferry.end() }
            let (source, _) = try ferry.makeSource(compression: .zstd)
            defer { source.detach() }
            let connection = try Connection()
            try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulks, inflating: inflated)
            source.freeze()
            try ferry.destination.attach(
                urgent: connection.destination.urgent,
                bulk: connection.destination.bulks,
                inflating: inflated
            ) { _ in }
            try source.startPush()
            #expect(ferry.waitUntilResident())
            #expect(ferry.wrongPages() == [])
            #expect((source.progress.compressed.runsShrunk > 0) == isUsed)
        }
    }

    @Test func `a codec that the destination has not announced ends its lanes`() throws {
        let ferry = try Ferry(pageCounts: [256], zeroEvery: 100_000)
        defer { ferry.end() }
        let (source, _) = try ferry.makeSource(compression: .zstd)
        defer { source.detach() }
        let connection = try Connection()
        try source.attach(urgent: connection.source.urgent, bulk: connection.source.bulks, inflating: [.zstd])
        source.freeze()
        let told = try EventLog<PageFetcher.LaneEvent>()
        try ferry.destination.attach(
            urgent: connection.destination.urgent,
            bulk: connection.destination.bulks,
            inflating: [.lz4]
        ) { told.add($0) }
        try source.startPush()
        let reason = told.first { if case .lost(.bulk, let reason) = $0 { reason } else { nil } }
        #expect(reason?.contains("compressed by zstd, which this side has not announced") == true)
        #expect(ferry.destination.progress.pushed == 0)
    }

    @Test(arguments: [PushCompression.lz4, .zstd, .auto])
    func `faults, prefetch and a compressed push together deliver every page`(compression: PushCompression) throws {
        let ferry = try Ferry(pageCounts: [4000, 3000], prefetch: .streams())
        defer { ferry.end() }
        let (source, events) = try ferry.serve(compression: compression)
        defer { source.detach() }
        try ferry.touch(region: 0, Array(0..<4000))
        try ferry.touch(region: 1, (0..<3000).shuffled())
        try source.startPush()
        ferry.waitForReaders()
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        #expect(ferry.wrongPages() == [])
    }

    @Test(arguments: [PushCompression.lz4, .zstd])
    func `a compressed push continues over the next link after a broken one`(compression: PushCompression) throws {
        let ferry = try Ferry(pageCounts: [20_000], zeroEvery: 100_000)
        defer { ferry.end() }
        let (source, events) = try ferry.serve(compression: compression)
        defer { source.detach() }
        try source.startPush()
        while ferry.destination.progress.pagesResident < 2000 { JoinedThread.yield() }
        source.detach()
        ferry.destination.detach()
        #expect(source.resend(allBut: ferry.destination.received) == 0)
        try ferry.connect(source)
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(events.waitUntilSent())
        #expect(ferry.wrongPages() == [])
    }

    @Test(arguments: [PushCompression.lz4, .zstd])
    func `compressed pages reach memory of another process`(compression: PushCompression) throws {
        let ferry = try AliasedFerry(pageCount: 1000)
        defer { ferry.end() }
        let source = try ferry.serve(compression: compression)
        defer { source.detach() }
        try ferry.touch([5, 700, 999])
        try source.startPush()
        #expect(ferry.waitUntilResident())
        ferry.waitForTouches()
        #expect(ferry.wrongPages() == [])
        #expect(source.progress.compressed.runsShrunk > 0)
    }

    @Test(arguments: [PushCompression.lz4, .zstd])
    func `huge pages are compressed one at a time`(compression: PushCompression) throws {
        try HugePages.with(free: 32) {
            let ferry = try Ferry(pageCounts: [13, 3], pageSize: HugePagePool.pageSize)
            defer { ferry.end() }
            let progress = try push(ferry, compression)
            #expect(progress.compressed.runsShrunk == 11)
            #expect(progress.bytesSent < progress.compressed.bytesBefore / 3 * 2)
        }
    }

    @Test func `compressed pages for a truncated file stop the placing of pages, but not the agent`() throws {
        let ferry = try AliasedFerry(pageCount: 6)
        defer { ferry.end() }
        let (_, bulk) = try ferry.connectToTest()
        #expect(ftruncate(ferry.file.descriptor.raw, 4096) == 0)
        let body = try compressed([UInt8](repeating: 7, count: 8192), by: .zstd)
        let run = PageRun(region: 0, count: 2, first: 3)
        try bulk.stream.send(.compressed(run, by: .zstd, byteCount: body.count), body: body)
        #expect(ferry.failure()?.hasPrefix("a page is not in the memory file") == true)
    }

    @Test(.timeLimit(.minutes(1)))
    func `the limit of the push counts compressed bytes`() throws {
        // 16 MiB of pages that shrink to a tenth or less; uncompressed, they would take 16 s.
        let ferry = try Ferry(pageCounts: [4096], zeroEvery: 100_000)
        defer { ferry.end() }
        let (source, _) = try ferry.serve(compression: .zstd)
        defer { source.detach() }
        source.limitPush(bytesPerSecond: 1 << 20)
        let begin = MonotonicClock.now()
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(MonotonicClock.now() - begin < 8_000_000_000)
        #expect(source.progress.bytesSent < 8 << 20)
    }

    @Test func `auto compresses over a limited link`() throws {
        let ferry = try Ferry(pageCounts: [2048], zeroEvery: 100_000)
        defer { ferry.end() }
        let (source, _) = try ferry.serve(compression: .auto)
        defer { source.detach() }
        source.limitPush(bytesPerSecond: 4 << 20)
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
        #expect(source.progress.compressed.runsShrunk > 0)
    }
}

private func compressed(_ bytes: [UInt8], by codec: Codec) throws -> [UInt8] {
    let compressor = Compressor([codec])
    var output = [UInt8](repeating: 0, count: bytes.count * 2 + 100)
    let count = bytes.withUnsafeBytes { bytes in
        output.withUnsafeMutableBytes { compressor.compress(bytes, by: codec, into: $0) }
    }
    return Array(output[..<(try #require(count))])
}

/// Compressed frames of a hostile source.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct HostileCompressionTests {
    private static let run = PageRun(region: 0, count: 4, first: 8)

    /// Sends a body as a frame's on the bulk lane, and returns why the destination has ended the lane.
    private func refusal(_ body: [UInt8], by codec: Codec, isCut: Bool = false, on lane: Lane = .bulk) throws -> String
    {
        let ferry = try Ferry(pageCounts: [64])
        defer { ferry.end() }
        try ferry.touch(region: 0, [9])
        let reason: String
        do {
            let peer = try ferry.connectToTest()
            _ = try peer.urgent.stream.receiveFrame()
            let attacked = lane == .urgent ? peer.urgent : peer.bulk
            let frame = LaneFrame.compressed(Self.run, by: codec, byteCount: body.count)
            try attacked.stream.send(frame, body: isCut ? Array(body.dropLast()) : body)
            if isCut { attacked.stream.shutdown() }
            let loss = try #require(ferry.lossAtDestination())
            #expect(loss.lane == lane)
            reason = loss.reason
        }
        #expect(!reason.contains("\n"))
        ferry.destination.detach()
        #expect(ferry.destination.progress.pagesResident == 0)
        // An honest source serves the same destination.
        let (source, _) = try ferry.makeSource(compression: .zstd)
        defer { source.detach() }
        source.freeze()
        try ferry.connect(source)
        ferry.waitForReaders()
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
        return reason
    }

    @Test(arguments: Codec.allCases)
    func `a bomb ends its lane before a page is placed`(codec: Codec) throws {
        let bomb = try compressed([UInt8](repeating: 7, count: 1 << 20), by: codec)
        let reason = try refusal(bomb, by: codec)
        #expect(
            reason.contains(codec == .lz4 ? "inflate to more than 16384 bytes" : "inflate to 1048576 bytes"),
            "\(reason)"
        )
        #expect(reason.hasPrefix("the peer sent a \(Self.run) compressed"))
    }

    @Test(arguments: Codec.allCases)
    func `bytes that inflate to less than their pages end their lane`(codec: Codec) throws {
        let short = try compressed([UInt8](repeating: 7, count: 16383), by: codec)
        #expect(try refusal(short, by: codec).contains("inflate to 16383 bytes, not to 16384"))
    }

    @Test(arguments: Codec.allCases)
    func `bytes that are no compressed data, or are cut off, end their lane`(codec: Codec) throws {
        let garbage = (0..<500).map { UInt8(truncatingIfNeeded: $0 &* 197 &+ 91) }
        #expect(try refusal(garbage, by: codec).contains("no whole \(codec) data"))
        let sound = try compressed((0..<16384).map { UInt8(truncatingIfNeeded: $0 / 50) }, by: codec)
        #expect(try refusal(Array(sound.dropLast(3)), by: codec).contains("no whole \(codec) data"))
        #expect(try refusal(sound, by: codec, isCut: true).contains("closed the connection"))
        #expect(try refusal([0], by: codec).contains(codec == .lz4 ? "inflate to 0 bytes" : "no whole zstd data"))
    }

    @Test(arguments: Codec.allCases)
    func `compressed pages end an urgent lane, even if they were requested`(codec: Codec) throws {
        let sound = try compressed([UInt8](repeating: 7, count: 16384), by: codec)
        #expect(try refusal(sound, by: codec, on: .urgent).contains("urgent lane"))
    }
}

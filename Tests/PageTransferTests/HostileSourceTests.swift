import LinuxSystem
import OwnThread
import PageProtocol
import PageServer
import Testing

@testable import PageFetcher

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct HostileSourceTests {
    /// A violation of the protocol by a source, and a part of the reason with which its lane is closed.
    enum Attack: CaseIterable, Sendable {
        case beyondRegion, unknownRegion, emptyRun, hugeRun, wrongLength, oversizedFrame, unknownKind, reserved
        case probeReply, pageRequest, aheadRequest, sent, controlFrame, truncatedHeader, truncatedPage, random
        case compressedLonger, compressedTooLong, compressedTooMany, compressedEmpty

        var bytes: [UInt8] {
            switch self {
            case .beyondRegion: frame(0x42, 16 + 4096, 0, 1, 64, body: 4096)
            case .unknownRegion: frame(0x42, 16 + 4096, 1, 1, 0, body: 4096)
            case .emptyRun: frame(0x43, 16, 0, 0, 3)
            case .hugeRun: frame(0x43, 16, 0, .max, .max)
            case .wrongLength: frame(0x42, 16 + 8192, 0, 1, 0, body: 8192)
            case .oversizedFrame: frame(0x42, .max, 0, 1, 0)
            case .unknownKind: frame(0x99, 16, 0, 1, 0)
            case .reserved: frame(0x43 | 1 << 16, 16, 0, 1, 0)
            case .probeReply: frame(0x45, 16 + 4096, 0, 0, 0, body: 4096)
            case .pageRequest: frame(0x41, 16, 0, 1, 0)
            case .aheadRequest: frame(0x46, 16, 0, 1, 0)
            case .sent: frame(0x47, 16, 0, 1, 5)
            case .controlFrame: frame(0x0b, 16, 0, 1, 0)
            case .truncatedHeader: Array(frame(0x43, 16, 0, 1, 0).prefix(11))
            case .truncatedPage: frame(0x42, 16 + 4096, 0, 1, 0, body: 4095)
            case .compressedLonger: frame(0x48, 16 + 4096, 0, 1, 0, body: 4096)
            case .compressedTooLong: frame(0x49, 16 + (2 << 20), 0, 1, 0)
            case .compressedTooMany: frame(0x49, 16 + 100, 0, 257, 0, body: 100)
            case .compressedEmpty: frame(0x48, 16, 0, 1, 0)
            case .random: (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 197 &+ 91) }
            }
        }

        var reason: String {
            switch self {
            case .compressedLonger: "compressed length is 4096, allowed 1...4095"
            case .compressedTooLong, .compressedEmpty: "payload of"
            case .compressedTooMany: "region 0"
            case .beyondRegion, .emptyRun, .hugeRun: "region 0"
            case .unknownRegion: "region 1"
            case .wrongLength: "PAGES"
            case .oversizedFrame: "payload"
            case .unknownKind, .random: "kind"
            case .reserved: "reserved"
            case .probeReply: "probeReply"
            case .pageRequest: "pageRequest"
            case .aheadRequest: "aheadRequest"
            case .sent: "not prefetched"
            case .controlFrame: "RUN"
            case .truncatedHeader, .truncatedPage: "closed the connection"
            }
        }

        private func frame(
            _ kind: UInt32,
            _ length: UInt32,
            _ region: UInt32,
            _ count: UInt32,
            _ first: UInt64,
            body: Int = 0
        ) -> [UInt8] {
            var bytes: [UInt8] = []
            for word in [length, kind, region, count] {
                withUnsafeBytes(of: word.littleEndian) { bytes += $0 }
            }
            withUnsafeBytes(of: first.littleEndian) { bytes += $0 }
            return bytes + [UInt8](repeating: 0xaa, count: body)
        }
    }

    @Test(arguments: Attack.allCases, [Lane.urgent, .bulk])
    func `a source that breaks the protocol loses only its lane, and the next source serves`(
        attack: Attack,
        lane: Lane
    ) throws {
        let ferry = try Ferry(pageCounts: [64])
        defer { ferry.end() }
        try ferry.touch(region: 0, [5])
        do {
            let peer = try ferry.connectToTest()
            // The request proves that the reader waits.
            let request = try #require(try peer.urgent.stream.receiveFrame())
            #expect(request.kind == .pageRequest)
            #expect(request.run == PageRun(region: 0, count: 1, first: 5))
            let attacked = lane == .urgent ? peer.urgent : peer.bulk
            try attacked.stream.send(attack.bytes)
            if attack == .truncatedHeader || attack == .truncatedPage { attacked.stream.shutdown() }
            let loss = try #require(ferry.lossAtDestination())
            #expect(loss.lane == lane)
            #expect(loss.reason.contains(attack.reason))
            #expect(!loss.reason.contains("\n"))
        }
        ferry.destination.detach()
        #expect(ferry.destination.progress.pagesResident == 0)
        try serveAll(ferry)
    }

    /// Lets an honest source deliver every page, the pages of waiting readers first.
    private func serveAll(_ ferry: Ferry) throws {
        let (source, _) = try ferry.makeSource()
        defer { source.detach() }
        source.freeze()
        try ferry.connect(source)
        ferry.waitForReaders()
        try source.startPush()
        #expect(ferry.waitUntilResident())
        #expect(ferry.wrongPages() == [])
    }

    @Test func `a page that was not requested is refused on the urgent lane`() throws {
        let ferry = try Ferry(pageCounts: [64])
        defer { ferry.end() }
        do {
            let peer = try ferry.connectToTest()
            let run = PageRun(region: 0, count: 1, first: 7)
            try peer.urgent.stream.send(.pages(run, pageSize: 4096), body: [UInt8](repeating: 0xaa, count: 4096))
            let loss = try #require(ferry.lossAtDestination())
            #expect(loss.lane == .urgent)
            #expect(loss.reason == "the peer sent a \(run), which was not requested")
        }
        ferry.destination.detach()
        #expect(ferry.destination.progress.pagesResident == 0)
        try serveAll(ferry)
    }

    @Test func `pages beside the requested one are refused on the urgent lane`() throws {
        let ferry = try Ferry(pageCounts: [64])
        defer { ferry.end() }
        try ferry.touch(region: 0, [5])
        do {
            let peer = try ferry.connectToTest()
            _ = try peer.urgent.stream.receiveFrame()
            try peer.urgent.stream.send(.zeroes(PageRun(region: 0, count: 2, first: 5)))
            #expect(ferry.lossAtDestination()?.lane == .urgent)
        }
        ferry.destination.detach()
        try serveAll(ferry)
    }

    @Test func `a page that arrives twice is counted and not written again`() throws {
        let ferry = try Ferry(pageCounts: [8])
        defer { ferry.end() }
        let peer = try ferry.connectToTest()
        let run = PageRun(region: 0, count: 2, first: 1)
        for byte in [UInt8(1), 2, 3] {
            try peer.bulk.stream.send(.pages(run, pageSize: 4096), body: [UInt8](repeating: byte, count: 8192))
        }
        try peer.bulk.stream.send(.zeroes(PageRun(region: 0, count: 8, first: 0)))
        #expect(ferry.waitUntilResident())
        #expect(ferry.arriving[0].page(1).load(as: UInt8.self) == 1)
        #expect(ferry.arriving[0].page(2).load(as: UInt8.self) == 1)
        ferry.destination.detach()
        #expect(ferry.destination.progress.duplicate == 6)
        #expect(ferry.destination.progress.pushed == 2)
        #expect(ferry.destination.progress.zero == 6)
    }

    @Test func `no fault is lost when lanes break again and again`() throws {
        let ferry = try Ferry(pageCounts: [128])
        defer { ferry.end() }
        for thread in 0..<4 { try ferry.touch(region: 0, (0..<32).map { 32 * thread + $0 }.shuffled()) }
        for _ in 0..<20 {
            let (source, _) = try ferry.makeSource()
            source.freeze()
            try ferry.connect(source)
            source.detach()
            ferry.destination.detach()
        }
        try serveAll(ferry)
    }
}

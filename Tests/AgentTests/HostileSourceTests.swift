import LinuxSystem
import OwnThread
import PageProtocol
import SourceAgent
import Testing

@testable import DestinationAgent

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct HostileSourceTests {
    /// What a source may send that it must not, and a part of the reason that ends its lane.
    enum Attack: CaseIterable, Sendable {
        case beyondRegion, unknownRegion, emptyRun, hugeRun, wrongLength, oversizedFrame, unknownKind, reserved
        case probeReply, pageRequest, controlFrame, truncatedHeader, truncatedPage, random

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
            case .controlFrame: frame(0x0b, 16, 0, 1, 0)
            case .truncatedHeader: Array(frame(0x43, 16, 0, 1, 0).prefix(11))
            case .truncatedPage: frame(0x42, 16 + 4096, 0, 1, 0, body: 4095)
            case .random: (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 197 &+ 91) }
            }
        }

        var reason: String {
            switch self {
            case .beyondRegion, .emptyRun, .hugeRun: "region 0"
            case .unknownRegion: "region 1"
            case .wrongLength: "PAGES"
            case .oversizedFrame: "payload"
            case .unknownKind, .random: "kind"
            case .reserved: "reserved"
            case .probeReply: "probeReply"
            case .pageRequest: "pageRequest"
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
    func `a source that breaks the protocol ends its lane only, and the next source serves`(
        attack: Attack,
        lane: Lane
    ) throws {
        let ferry = try Ferry(pageCounts: [64])
        defer { ferry.end() }
        try ferry.touch(region: 0, [5])
        do {
            let peer = try ferry.connectToTest()
            // The fault is asked for first, so that it is known to wait.
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

    /// Lets an honest source bring everything, beginning with what is waited for.
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

    @Test func `a page that nobody asked for is refused on the urgent lane`() throws {
        let ferry = try Ferry(pageCounts: [64])
        defer { ferry.end() }
        do {
            let peer = try ferry.connectToTest()
            let run = PageRun(region: 0, count: 1, first: 7)
            try peer.urgent.stream.send(.pages(run, pageSize: 4096), body: [UInt8](repeating: 0xaa, count: 4096))
            let loss = try #require(ferry.lossAtDestination())
            #expect(loss.lane == .urgent)
            #expect(loss.reason == "the peer sent a \(run), which nobody asked for")
        }
        ferry.destination.detach()
        #expect(ferry.destination.progress.pagesResident == 0)
        try serveAll(ferry)
    }

    @Test func `pages beside the one that was asked for are refused on the urgent lane`() throws {
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

    @Test func `a page that comes twice is counted and not written again`() throws {
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

    @Test func `lanes that break again and again lose no fault`() throws {
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

import Compression
import PageProtocol
import Testing

@Suite struct LaneFrameTests {
    static let run = PageRun(region: 1, count: 2, first: 0x0102_0304_0506_0708)
    static let frames: [LaneFrame] = [
        .pageRequest(run),
        .pages(run, pageSize: 4096),
        .pages(PageRun(region: .max, count: 256, first: .max), pageSize: 4096),
        .pages(PageRun(region: 63, count: 1, first: 0), pageSize: 1 << 30),
        .zeroes(PageRun(region: 0, count: .max, first: 0)),
        .probe,
        .probeReply,
        .aheadRequest(run),
        .sent(run),
        .compressed(run, by: .lz4, byteCount: 8191),
        .compressed(PageRun(region: 0, count: 1, first: 7), by: .zstd, byteCount: (2 << 20) - 1),
    ]

    @Test(arguments: frames)
    func aFrameSurvivesTheWire(_ frame: LaneFrame) throws {
        #expect(try decodeLane(encoded(frame)) == frame)
    }

    @Test func theBytesThatFollowAreThoseOfTheKind() {
        #expect(Self.frames.map(\.bodyByteCount) == [0, 8192, 1 << 20, 1 << 30, 0, 0, 4096, 0, 0, 8191, (2 << 20) - 1])
    }

    @Test func theKindsAreThoseOfTheHeader() throws {
        for kind in LaneFrame.Kind.allCases {
            let common = try #require(FrameKind(rawValue: kind.rawValue))
            #expect(!common.isControl)
            #expect("\(kind)".lowercased() == "\(common)".lowercased().filter { $0 != "_" })
        }
        for frame in Self.frames {
            #expect(Array(encoded(frame)[4..<6]) == bytes(frame.kind.rawValue))
        }
    }

    @Test func aFrameIsReadAndWrittenAtAnyAlignment() throws {
        let frame = LaneFrame.pages(Self.run, pageSize: 4096)
        let storage = UnsafeMutableRawPointer.allocate(byteCount: 40, alignment: 16)
        defer { storage.deallocate() }
        for offset in 0..<16 {
            frame.encode(into: storage + offset)
            #expect(try LaneFrame.decode(UnsafeRawPointer(storage + offset)) == frame)
        }
    }

    @Test(arguments: 0..<24)
    func everyPrefixIsRefused(count: Int) {
        #expect(throws: ProtocolError.truncatedHeader(found: count, needed: 24)) {
            try decodeLane(Array(encoded(.probe).prefix(count)))
        }
    }

    @Test(arguments: FrameKind.allCases.filter { !$0.isControl && $0 != .join })
    func aHeaderIsHeldToTheLengthsOfItsOwnKind(_ kind: FrameKind) throws {
        let bounds = kind.payloadBounds
        let run = [UInt8](repeating: 0, count: 16)
        for length in [bounds.lowerBound, bounds.upperBound] {
            let frame = try decodeLane(header(length: length, kind: kind.rawValue) + run)
            #expect(frame.bodyByteCount == length - 16)
        }
        for length in [bounds.lowerBound - 1, bounds.upperBound + 1, 0, 15, UInt32.max] {
            #expect(
                throws: ProtocolError.lengthOutOfBounds(
                    frame: kind,
                    found: UInt64(length),
                    allowed: UInt64(bounds.lowerBound)...UInt64(bounds.upperBound)
                )
            ) { try decodeLane(header(length: length, kind: kind.rawValue) + run) }
        }
    }

    @Test(arguments: FrameKind.allCases.filter { $0.isControl || $0 == .join })
    func aControlFrameIsRefusedOnALane(_ kind: FrameKind) {
        #expect(throws: ProtocolError.wrongConnection(frame: kind, control: false)) {
            try decodeLane(header(length: 16, kind: kind.rawValue) + [UInt8](repeating: 0, count: 16))
        }
    }

    @Test func kindsThatAreNoneAndReservedFieldsAreRefused() {
        let run = [UInt8](repeating: 0, count: 16)
        #expect(throws: ProtocolError.unknownKind(0x4a)) { try decodeLane(header(length: 16, kind: 0x4a) + run) }
        #expect(throws: ProtocolError.reservedNotZero(frame: .zeroes, found: 0x100)) {
            try decodeLane(header(length: 16, kind: 0x43, reserved: 0x100) + run)
        }
    }

    @Test(arguments: [
        PageRun(region: 1, count: 0, first: 0), PageRun(region: 0, count: 1, first: 0),
        PageRun(region: 0, count: 0, first: 1), PageRun(region: 0, count: 0, first: 1 << 63),
    ])
    func aProbeWithARunIsRefused(_ run: PageRun) {
        let place = bytes(run.region) + bytes(run.count) + bytes(run.first)
        for (kind, length) in [(FrameKind.probe, 16), (.probeReply, 16 + 4096)] as [(FrameKind, UInt32)] {
            #expect(throws: ProtocolError.probeWithRun(frame: kind, run: run)) {
                try decodeLane(header(length: length, kind: kind.rawValue) + place)
            }
        }
    }
}

import Identity
import PageProtocol
import Testing

@Suite struct OpeningFrameTests {
    private let join = Join(lane: .bulk, migration: Samples.migration, nonce: Samples.nonce)

    private func payload(_ hello: Hello) throws -> [UInt8] {
        Array(try ControlMessage.hello(hello).encode().dropFirst(8))
    }

    @Test func anAcceptedConnectionSaysWhichOneItIs() throws {
        #expect(try decodeOpening(.hello, payload(Samples.hello)) == .hello(Samples.hello))
        for (lane, index) in [(Lane.urgent, 0), (.urgent, 15), (.bulk, 0), (.bulk, 63)] {
            let join = Join(lane: lane, index: index, migration: Samples.migration, nonce: Samples.nonce)
            let frame = join.encode()
            #expect(frame.count == 48)
            let (kind, length) = try OpeningFrame.decodeHeader(frame.span.extracting(0..<8).bytes)
            #expect(kind == .join)
            #expect(length == 40)
            #expect(try decodeOpening(.join, Array(frame.dropFirst(8))) == .join(join))
        }
    }

    @Test func everyPrefixOfAJoinIsRefused() {
        let payload = Array(join.encode().dropFirst(8))
        for count in payload.indices {
            #expect(throws: ProtocolError.self) { try decodeOpening(.join, Array(payload.prefix(count))) }
        }
        #expect(throws: ProtocolError.trailingBytes(frame: .join, count: 1)) {
            try decodeOpening(.join, payload + [0])
        }
    }

    @Test func aConnectionOpensWithHelloOrJoinOnly() {
        for kind in FrameKind.allCases where kind != .hello && kind != .join {
            let first = header(length: kind.payloadBounds.lowerBound, kind: kind.rawValue)
            #expect(throws: ProtocolError.notAnOpening(kind)) { try OpeningFrame.decodeHeader(first.span.bytes) }
            #expect(throws: ProtocolError.notAnOpening(kind)) { try decodeOpening(kind, []) }
        }
        let web = Array("GET / HT".utf8)
        #expect(throws: ProtocolError.unknownKind(0x202f)) { try OpeningFrame.decodeHeader(web.span.bytes) }
        let oversized = header(length: 4097, kind: FrameKind.join.rawValue)
        #expect(throws: ProtocolError.lengthOutOfBounds(frame: .join, found: 4097, allowed: 8...4096)) {
            try OpeningFrame.decodeHeader(oversized.span.bytes)
        }
    }

    @Test func anotherMagicIsRefusedBeforeAnythingElse() throws {
        var bad = Array(join.encode().dropFirst(8))
        bad[0] = 0x51
        bad[4] = 9
        #expect(throws: ProtocolError.wrongMagic(frame: .join, found: 0x5946_4751)) { try decodeOpening(.join, bad) }
    }

    @Test func anotherVersionIsNamedWhateverElseItsHelloHolds() {
        let later = bytes(Wire.magic) + bytes(UInt16(9)) + [UInt8](repeating: 0xff, count: 2000)
        for kind in [FrameKind.hello, .join] {
            #expect(throws: ProtocolError.versionMismatch(found: 9)) { try decodeOpening(kind, later) }
        }
        #expect(throws: ProtocolError.versionMismatch(found: 9)) { try decodeControl(.hello, later) }
        let shortest = bytes(Wire.magic) + bytes(UInt16(0)) + [0, 0]
        #expect(throws: ProtocolError.versionMismatch(found: 0)) { try decodeOpening(.hello, shortest) }
    }

    @Test(arguments: [
        (6, 0, ProtocolError.unknownValue(frame: .hello, field: "role", found: 0)),
        (6, 3, .unknownValue(frame: .hello, field: "role", found: 3)),
        (7, 2, .outOfBounds(frame: .hello, field: "flags", found: 2, allowed: 0...1)),
        (7, 0xf4, .outOfBounds(frame: .hello, field: "flags", found: 4, allowed: 0...1)),
        (15, 64, .outOfBounds(frame: .hello, field: "bulk lanes beyond the first", found: 64, allowed: 0...63)),
        (64, 2, .unknownValue(frame: .hello, field: "lease kind", found: 2)),
    ])
    func aFieldOfHelloThatMeansNothingIsRefused(offset: Int, value: UInt8, error: ProtocolError) throws {
        var bad = try payload(Samples.hello)
        bad[offset] = value
        #expect(throws: error) { try decodeOpening(.hello, bad) }
    }

    @Test(arguments: [
        (6, 0, ProtocolError.unknownValue(frame: .join, field: "lane", found: 0)),
        (6, 3, .unknownValue(frame: .join, field: "lane", found: 3)),
        (7, 64, .outOfBounds(frame: .join, field: "lane index", found: 64, allowed: 0...63)),
    ])
    func aFieldOfJoinThatMeansNothingIsRefused(offset: Int, value: UInt8, error: ProtocolError) {
        var bad = Array(join.encode().dropFirst(8))
        bad[offset] = value
        #expect(throws: error) { try decodeOpening(.join, bad) }
    }

    @Test func ofUrgentLanesThereAreSixteen() {
        var bad = Array(Join(lane: .urgent, migration: Samples.migration, nonce: Samples.nonce).encode().dropFirst(8))
        bad[7] = 16
        #expect(throws: ProtocolError.outOfBounds(frame: .join, field: "lane index", found: 16, allowed: 0...15)) {
            try decodeOpening(.join, bad)
        }
    }

    @Test func aFormerReleaseUsesOneBulkLane() throws {
        var former = try payload(Samples.hello)
        // A former release gives this byte no meaning, and sends 0.
        former[15] = 0
        var expected = Samples.hello
        expected.bulkLanes = 1
        #expect(try decodeOpening(.hello, former) == .hello(expected))
    }

    @Test func withoutALeaseItsFieldsAreEmpty() throws {
        let fixed = Array(try payload(Samples.dialersHello).prefix(64))
        let refused: [[UInt8]] = [
            bytes(UInt8(0)) + bytes(UInt64(1)) + text("") + text(""),
            bytes(UInt8(0)) + bytes(UInt64(0)) + text("x") + text(""),
            bytes(UInt8(0)) + bytes(UInt64(0)) + text("") + text("x"),
        ]
        for lease in refused {
            #expect(throws: ProtocolError.self) { try decodeOpening(.hello, fixed + lease) }
        }
    }

    @Test func aLeaseNamesItsStoreAndWorkload() throws {
        let fixed = try payload(Samples.dialersHello).prefix(64)
        for (store, workload) in [("", "w"), ("s", ""), (Samples.name(1025), "w"), ("s", Samples.name(1025))] {
            let lease = LeaseClaim.files(epoch: 1, store: store, workload: workload)
            var hello = Samples.hello
            hello.lease = lease
            #expect(throws: ProtocolError.self) { try ControlMessage.hello(hello).encode() }
            let bad = Array(fixed) + bytes(UInt8(1)) + bytes(UInt64(1)) + text(store) + text(workload)
            #expect(throws: ProtocolError.self) { try decodeOpening(.hello, bad) }
        }
        var largest = Samples.hello
        largest.lease = .files(epoch: .max, store: Samples.name(1024), workload: Samples.name(1024))
        #expect(try decodeOpening(.hello, payload(largest)) == .hello(largest))
    }

    @Test func storesAreComparedByteByByte() {
        let composed = LeaseClaim.files(epoch: 1, store: "/caf\u{e9}", workload: "w")
        let decomposed = LeaseClaim.files(epoch: 1, store: "/cafe\u{301}", workload: "w")
        #expect(composed != decomposed)
        #expect(composed != .absent)
        #expect(composed != .files(epoch: 2, store: "/caf\u{e9}", workload: "w"))
    }

    @Test func anIdentifierPrintsItsBytesInTheOrderOfTheWire() {
        #expect(Samples.migration.description == "00112233445566778899aabbccddeeff")
        #expect(MigrationID(hex: "00112233445566778899aabbccddeeff") == Samples.migration)
        for bad in ["", "0", "+0112233445566778899aabbccddeeff", "g0112233445566778899aabbccddeeff"] {
            #expect(MigrationID(hex: bad) == nil)
        }
        #expect(Nonce.random() != Nonce.random())
    }
}

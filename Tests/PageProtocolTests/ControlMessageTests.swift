import PageProtocol
import Testing

@Suite struct ControlMessageTests {
    @Test func theSamplesHaveEveryControlMessage() {
        let kinds = Set(Samples.messages.map(\.kind))
        #expect(kinds == Set(FrameKind.allCases.filter(\.isControl)))
    }

    @Test(arguments: Samples.messages.indices)
    func aMessageSurvivesTheWire(index: Int) throws {
        let message = Samples.messages[index]
        let frame = try message.encode()
        let (kind, length) = try decodeControlHeader(Array(frame.prefix(8)))
        #expect(kind == message.kind)
        #expect(length == frame.count - 8)
        #expect(try decodeControl(frame) == message)
    }

    @Test(arguments: Samples.small)
    func everyPrefixOfAPayloadIsRefused(_ message: ControlMessage) throws {
        // Chunks of device state and bitmaps have no inner structure; only the header gives their length.
        if message.kind == .deviceData || message.kind == .received { return }
        let payload = Array(try message.encode().dropFirst(8))
        for count in payload.indices {
            #expect(throws: ProtocolError.self, "\(count) bytes of \(message.kind)") {
                try decodeControl(message.kind, Array(payload.prefix(count)))
            }
        }
    }

    @Test(arguments: Samples.messages.indices)
    func bytesAfterTheLastFieldAreRefused(index: Int) throws {
        let message = Samples.messages[index]
        let payload = Array(try message.encode().dropFirst(8))
        if case .deviceData(let chunk) = message, chunk.count < 1 << 20 { return }
        if case .received = message { return }
        let error = #expect(throws: ProtocolError.self) { try decodeControl(message.kind, payload + [0]) }
        switch error {
        case .trailingBytes(let frame, count: 1): #expect(frame == message.kind)
        case .lengthOutOfBounds(let frame, let found, _):
            #expect(frame == message.kind)
            #expect(found == UInt64(payload.count) + 1)
        default: Issue.record("\(String(describing: error))")
        }
    }

    @Test(arguments: 0..<8)
    func everyPrefixOfAHeaderIsRefused(count: Int) {
        #expect(throws: ProtocolError.truncatedHeader(found: count, needed: 8)) {
            try decodeControlHeader(Array(header(length: 8, kind: 0x08).prefix(count)))
        }
    }

    @Test(arguments: FrameKind.allCases)
    func aHeaderIsHeldToTheLengthsOfItsOwnKind(_ kind: FrameKind) throws {
        let bounds = kind.payloadBounds
        for length in [bounds.lowerBound, bounds.upperBound] where kind.isControl {
            let (found, announced) = try decodeControlHeader(header(length: length, kind: kind.rawValue))
            #expect(found == kind)
            #expect(announced == Int(length))
        }
        for length in [bounds.lowerBound &- 1, bounds.upperBound + 1, UInt32.max] where kind.isControl {
            #expect(
                throws: ProtocolError.lengthOutOfBounds(
                    frame: kind,
                    found: UInt64(length),
                    allowed: UInt64(bounds.lowerBound)...UInt64(bounds.upperBound)
                )
            ) { try decodeControlHeader(header(length: length, kind: kind.rawValue)) }
        }
    }

    @Test func theLargestMessagesReachTheirKindsBound() throws {
        #expect(try ControlMessage.regions(guest: Samples.largestGuest).encode().count - 8 == 71112)
        #expect(FrameKind.regions.payloadBounds.upperBound == 71112)
        let devices = (0..<64).map { DeviceEntry(name: Samples.name(62) + String($0 + 10), byteCount: 1 << 24) }
        #expect(try ControlMessage.devices(devices).encode().count - 8 == 4738)
        #expect(FrameKind.devices.payloadBounds.upperBound == 4738)
        #expect(try decodeControl(ControlMessage.devices(devices).encode()) == .devices(devices))
    }

    @Test(arguments: FrameKind.allCases.filter { !$0.isControl })
    func aLaneFrameIsRefusedOnTheControlConnection(_ kind: FrameKind) {
        let refusal = ProtocolError.wrongConnection(frame: kind, control: true)
        #expect(throws: refusal) { try decodeControlHeader(header(length: 16, kind: kind.rawValue)) }
        #expect(throws: refusal) { try decodeControl(kind, [UInt8](repeating: 0, count: 16)) }
    }

    @Test(arguments: [UInt16(0), 0x19, 0x3f, 0x4a, 0x202f, 0xffff])
    func aKindThatIsNoneIsRefused(kind: UInt16) {
        #expect(throws: ProtocolError.unknownKind(kind)) { try decodeControlHeader(header(length: 0, kind: kind)) }
    }

    @Test(arguments: [UInt16(1), 0x8000, 0xffff])
    func aReservedFieldThatIsNotZeroIsRefused(reserved: UInt16) {
        #expect(throws: ProtocolError.reservedNotZero(frame: .ping, found: UInt64(reserved))) {
            try decodeControlHeader(header(length: 8, kind: 0x08, reserved: reserved))
        }
    }
}

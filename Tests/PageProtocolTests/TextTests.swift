import PageProtocol
import Testing

@Suite struct TextTests {
    private func carried(_ reason: String) throws -> String? {
        guard case .failure(let carried) = try decodeControl(ControlMessage.failure(reason: reason).encode()) else {
            return nil
        }
        return carried
    }

    @Test func aLongReasonIsCutOffBeforeTheCharacterThatExceedsTheBound() throws {
        #expect(try carried(Samples.name(1025)) == Samples.name(1024))
        #expect(try carried(Samples.name(1023) + "ü") == Samples.name(1023))
        #expect(try carried(Samples.name(1022) + "üx") == Samples.name(1022) + "ü")
        #expect(try carried(Samples.name(1021) + "😀") == Samples.name(1021))
        #expect(try carried(String(repeating: "😀", count: 300)) == String(repeating: "😀", count: 256))
    }

    @Test func aReasonIsOneLine() throws {
        #expect(try carried("first\nsecond\t\u{1b}[2J\u{7f}\u{9b}") == "first second  [2J  ")
    }

    @Test func aReasonThatIsLongerThanItsBoundIsRefused() {
        let payload = bytes(UInt16(1025)) + Samples.name(1024).utf8
        #expect(
            throws: ProtocolError.outOfBounds(
                frame: .failure,
                field: "length of reason",
                found: 1025,
                allowed: 0...1024
            )
        ) { try decodeControl(.failure, payload) }
    }

    @Test(arguments: [
        [0xff], [0xc3], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0x61, 0x80],
    ])
    func textThatIsNotUTF8IsRefused(_ content: [UInt8]) {
        let payload = bytes(UInt16(content.count)) + content
        #expect(throws: ProtocolError.invalidUTF8(frame: .refused, field: "reason")) {
            try decodeControl(.refused, payload)
        }
    }

    @Test(arguments: [UInt32(0), 0x0a, 0x1b, 0x1f, 0x7f, 0x80, 0x9b, 0x9f])
    func aControlCharacterIsRefused(_ value: UInt32) throws {
        let scalar = try #require(Unicode.Scalar(value))
        #expect(throws: ProtocolError.controlCharacter(frame: .refused, field: "reason", found: value)) {
            try decodeControl(.refused, text("a" + String(scalar)))
        }
        #expect(throws: ProtocolError.controlCharacter(frame: .devices, field: "device name", found: value)) {
            try ControlMessage.devices([DeviceEntry(name: String(scalar), byteCount: 0)]).encode()
        }
    }

    @Test func aDeviceNameIsHeldToItsBounds() throws {
        let longest = ControlMessage.devicesFailed(device: Samples.name(64), reason: Samples.name(1024))
        #expect(try decodeControl(longest.encode()) == longest)
        let refusal = ProtocolError.outOfBounds(
            frame: .devicesFailed,
            field: "length of device name",
            found: 65,
            allowed: 0...64
        )
        #expect(throws: refusal) { try ControlMessage.devicesFailed(device: Samples.name(65), reason: "").encode() }
        #expect(throws: refusal) { try decodeControl(.devicesFailed, text(Samples.name(65)) + text("")) }
    }
}

import PageProtocol
import Testing

@Suite struct DeviceTests {
    private func payload(_ devices: [DeviceEntry]) -> [UInt8] {
        devices.reduce(into: bytes(UInt16(devices.count))) { $0 += text($1.name) + bytes($1.byteCount) }
    }

    /// Checks that both the encoder and the decoder refuse the devices with this error.
    private func expectRefused(_ devices: [DeviceEntry], _ error: ProtocolError) {
        #expect(throws: error) { try ControlMessage.devices(devices).encode() }
        #expect(throws: error) { try decodeControl(.devices, payload(devices)) }
    }

    @Test func moreThan64DevicesAreRefused() {
        let devices = (0..<65).map { DeviceEntry(name: String($0), byteCount: 1) }
        let refusal = ProtocolError.outOfBounds(frame: .devices, field: "device count", found: 65, allowed: 0...64)
        expectRefused(devices, refusal)
        // The count alone decides, before an entry is read.
        #expect(throws: refusal) { try decodeControl(.devices, bytes(UInt16(65))) }
    }

    @Test func aNameIsOneTo64BytesLong() {
        for count in [0, 65] {
            expectRefused(
                [DeviceEntry(name: Samples.name(count), byteCount: 1)],
                .outOfBounds(
                    frame: .devices,
                    field: "length of device name",
                    found: UInt64(count),
                    allowed: 1...64
                )
            )
        }
    }

    @Test func aNameIsUsedOnce() {
        let devices = [DeviceEntry(name: "cpu", byteCount: 1), DeviceEntry(name: "cpu", byteCount: 2)]
        expectRefused(devices, .duplicateName(frame: .devices, name: "cpu"))
    }

    @Test func allStatesTogetherHaveOneGibibyte() {
        let sizes: [(first: UInt64, second: UInt64, sum: UInt64)] = [
            (1 << 30, 1, (1 << 30) + 1), (1, 1 << 30, (1 << 30) + 1), (1, .max, .max),
        ]
        for (first, second, sum) in sizes {
            expectRefused(
                [DeviceEntry(name: "a", byteCount: first), DeviceEntry(name: "b", byteCount: second)],
                .outOfBounds(
                    frame: .devices,
                    field: "length of all states up to \"b\"",
                    found: sum,
                    allowed: 0...(1 << 30)
                )
            )
        }
    }

    @Test func aChunkHasOneByteToOneMebibyte() {
        for count in [0, (1 << 20) + 1] {
            let chunk = [UInt8](repeating: 0, count: count)
            #expect(
                throws: ProtocolError.outOfBounds(
                    frame: .deviceData,
                    field: "chunk length",
                    found: UInt64(count),
                    allowed: 1...(1 << 20)
                )
            ) { try ControlMessage.deviceData(chunk).encode() }
            #expect(
                throws: ProtocolError.lengthOutOfBounds(
                    frame: .deviceData,
                    found: UInt64(count),
                    allowed: 1...(1 << 20)
                )
            ) { try decodeControl(.deviceData, chunk) }
        }
    }
}

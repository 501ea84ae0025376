import Outside

/// One device state that DEVICES announces.
package struct DeviceEntry: Hashable, Sendable {
    /// The device's name, 1 to 64 bytes, used once.
    package var name: String
    /// Bytes of its state, 0 or more; all states together at most 1 GiB.
    package var byteCount: UInt64

    /// An entry; its bounds are checked when it is encoded.
    package init(name: String, byteCount: UInt64) {
        self.name = name
        self.byteCount = byteCount
    }

    static func write(_ devices: [DeviceEntry], to writer: inout WireWriter) throws(ProtocolError) {
        try validate(devices)
        writer.append(UInt16(devices.count))
        for device in devices {
            try writer.append(device.name, field: "device name", allowed: 1...Wire.maxNameBytes)
            writer.append(device.byteCount)
        }
    }

    static func readList(from reader: inout WireReader) throws(ProtocolError) -> [DeviceEntry] {
        let count: UInt16 = try reader.read("device count")
        try reader.require(UInt64(count), field: "device count", in: 0...UInt64(Wire.maxDevices))
        var devices: [DeviceEntry] = []
        devices.reserveCapacity(Int(count))
        for _ in 0..<count {
            let name = try reader.readText("device name", allowed: 1...Wire.maxNameBytes)
            devices.append(DeviceEntry(name: name, byteCount: try reader.read("state length")))
        }
        try validate(devices)
        return devices
    }

    private static func validate(_ devices: [DeviceEntry]) throws(ProtocolError) {
        guard devices.count <= Wire.maxDevices else {
            throw .outOfBounds(
                frame: .devices,
                field: "device count",
                found: UInt64(devices.count),
                allowed: 0...UInt64(Wire.maxDevices)
            )
        }
        var names: Set<String> = []
        var total: UInt64 = 0
        for device in devices {
            guard names.insert(device.name).inserted else {
                throw .duplicateName(frame: .devices, name: device.name)
            }
            let sum = Untrusted(total) + Untrusted(device.byteCount)
            guard let next = sum.within(0...Wire.maxDeviceBytes) else {
                throw .outOfBounds(
                    frame: .devices,
                    field: "length of all states up to \"\(device.name)\"",
                    found: sum.clamped(to: 0...UInt64.max),
                    allowed: 0...Wire.maxDeviceBytes
                )
            }
            total = next
        }
    }
}

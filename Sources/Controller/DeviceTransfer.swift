import Guest
import PageProtocol

/// The devices' states as they cross the control connection: announced by DEVICES, then cut into DEVICE_DATA.
enum DeviceTransfer {
    /// The frames that carry saved states, in order.
    static func frames(of saved: [DeviceSet.Saved]) throws(ProtocolError) -> [[UInt8]] {
        let entries = saved.map { DeviceEntry(name: $0.name, byteCount: UInt64($0.state.count)) }
        var frames = [try ControlMessage.devices(entries).encode()]
        for device in saved {
            var rest = device.state[...]
            while !rest.isEmpty {
                let chunk = rest.prefix(Wire.maxDeviceChunkBytes)
                frames.append(try ControlMessage.deviceData(Array(chunk)).encode())
                rest = rest.dropFirst(chunk.count)
            }
        }
        return frames
    }
}

/// Puts states together as they arrive.
struct ArrivingDevices {
    private let entries: [DeviceEntry]
    private var states: [DeviceSet.Saved] = []
    private var partial: [UInt8] = []

    init(_ entries: [DeviceEntry]) {
        self.entries = entries
        closeFinished()
    }

    /// Every state, once all have arrived.
    var complete: [DeviceSet.Saved]? { states.count == entries.count ? states : nil }

    /// Takes the next piece.
    ///
    /// - Returns: false if it holds more than was announced.
    mutating func add(_ bytes: [UInt8]) -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            guard states.count < entries.count else { return false }
            let missing = Int(entries[states.count].byteCount) - partial.count
            partial += rest.prefix(missing)
            rest = rest.dropFirst(missing)
            closeFinished()
        }
        return true
    }

    private mutating func closeFinished() {
        while states.count < entries.count, partial.count == Int(entries[states.count].byteCount) {
            states.append(DeviceSet.Saved(name: entries[states.count].name, state: partial))
            partial = []
        }
    }
}

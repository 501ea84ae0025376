import Guest
import PageProtocol

/// Device states on the control connection: announced by DEVICES or DEVICES_AHEAD, then cut into DEVICE_DATA.
enum DeviceTransfer {
    /// Encodes saved states as frames, in the order in which they are sent.
    ///
    /// - Parameters:
    ///   - saved: the states.
    ///   - ahead: whether the workload still runs, so that DEVICES_AHEAD announces the states.
    /// - Throws: `ProtocolError` if the states exceed the protocol's bounds.
    static func frames(of saved: [DeviceSet.Saved], ahead: Bool = false) throws(ProtocolError) -> [[UInt8]] {
        let entries = saved.map { DeviceEntry(name: $0.name, byteCount: UInt64($0.state.count)) }
        var frames = [try (ahead ? ControlMessage.devicesAhead(entries) : .devices(entries)).encode()]
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

/// Assembles device states from DEVICE_DATA.
struct ArrivingDevices {
    private let entries: [DeviceEntry]
    /// The states that arrived before the stop, by device; for these devices, patches arrive.
    private let earlier: [String: [UInt8]]
    private var states: [DeviceSet.Saved] = []
    private var partial: [UInt8] = []
    /// The number of bytes that the remaining states may have.
    private var room = Int(Wire.maxDeviceBytes)
    /// Whether a patch did not fit, or the states exceed the protocol's bound.
    private(set) var isWrong = false

    init(_ entries: [DeviceEntry], since earlier: [String: [UInt8]]) {
        self.entries = entries
        self.earlier = earlier
        closeFinished()
    }

    /// All states; nil until the last one has arrived.
    var complete: [DeviceSet.Saved]? { states.count == entries.count && !isWrong ? states : nil }

    /// Adds the content of the next DEVICE_DATA.
    ///
    /// - Parameter bytes: the content.
    /// - Returns: false if the content exceeds what was announced, or completes a patch that does not fit.
    mutating func add(_ bytes: [UInt8]) -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            guard states.count < entries.count, !isWrong else { return false }
            let missing = Int(entries[states.count].byteCount) - partial.count
            partial += rest.prefix(missing)
            rest = rest.dropFirst(missing)
            closeFinished()
        }
        return !isWrong
    }

    private mutating func closeFinished() {
        while !isWrong, states.count < entries.count, partial.count == Int(entries[states.count].byteCount) {
            let name = entries[states.count].name
            var state = partial
            if let earlier = earlier[name] {
                guard let patched = StatePatch.apply(partial, to: earlier, limit: room) else {
                    isWrong = true
                    return
                }
                state = patched
            }
            room -= state.count
            isWrong = room < 0
            states.append(DeviceSet.Saved(name: name, state: state))
            partial = []
        }
    }
}

/// The device states of an arriving workload: those that are sent before the stop, and what has changed since.
struct ArrivingStates {
    /// Why a source's device states are not accepted.
    struct Objection: Error, CustomStringConvertible {
        let description: String

        static let wrong = Objection(
            description:
                "the source sent more device state than it announced, or a patch that does not fit the state before"
        )
        static let tooMuch = Objection(
            description: "the source sent more device state ahead than the protocol carries"
        )

        static func unfinished(before frame: String) -> Objection {
            Objection(description: "the source sent \(frame) before all of the device state it announced")
        }
    }

    /// The states that came before the stop, by device.
    private var ahead: [String: [UInt8]] = [:]
    private var arrivingAhead: ArrivingDevices?
    private var arriving: ArrivingDevices?

    /// All states; nil until the last one has arrived.
    var complete: [DeviceSet.Saved]? { arriving?.complete }

    /// Handles DEVICES_AHEAD.
    mutating func announceAhead(_ entries: [DeviceEntry]) throws(Objection) {
        try requireAhead(before: "DEVICES_AHEAD")
        arrivingAhead = ArrivingDevices(entries, since: ahead)
        try keepAhead()
    }

    /// Throws if states that are sent ahead are still incomplete.
    func requireAhead(before frame: String) throws(Objection) {
        guard arrivingAhead == nil else { throw .unfinished(before: frame) }
    }

    /// Handles DEVICES.
    mutating func announce(_ entries: [DeviceEntry]) {
        arriving = ArrivingDevices(entries, since: ahead)
        ahead = [:]
    }

    /// Handles DEVICE_DATA.
    mutating func add(_ bytes: [UInt8]) throws(Objection) {
        if arrivingAhead == nil {
            guard arriving?.add(bytes) == true else { throw .wrong }
        } else {
            guard arrivingAhead?.add(bytes) == true else { throw .wrong }
            try keepAhead()
        }
    }

    /// Takes all states out.
    mutating func take() -> [DeviceSet.Saved] {
        defer { self = ArrivingStates() }
        return complete ?? []
    }

    /// Keeps the states that were sent ahead, once all that were announced have arrived.
    private mutating func keepAhead() throws(Objection) {
        guard let states = arrivingAhead?.complete else {
            if arrivingAhead?.isWrong == true { throw .wrong }
            return
        }
        arrivingAhead = nil
        for device in states { ahead[device.name] = device.state }
        guard ahead.count <= Wire.maxDevices, ahead.values.reduce(0, { $0 + $1.count }) <= Wire.maxDeviceBytes else {
            throw .tooMuch
        }
    }
}

import Synchronization

/// All devices of one workload, in the order in which they are saved and loaded.
package struct DeviceSet: Sendable {
    /// A device's state between saving and loading.
    package struct Saved: Hashable, Sendable {
        /// The device's name.
        package let name: String
        /// The bytes that ``Device/save()`` returned.
        package let state: [UInt8]

        /// Pairs a device's name with its saved bytes.
        package init(name: String, state: [UInt8]) {
            self.name = name
            self.state = state
        }
    }

    /// The devices of a workload in another process, which alone knows them.
    package protocol Elsewhere: Sendable {
        /// Hands all states to the process, and throws if the process cannot load one.
        func load(_ saved: [Saved]) throws
        /// Fetches all states of the stopped workload from the process.
        func save() throws -> [Saved]
        /// Tells the process that another side may start the workload from now on.
        func depart() throws
    }

    /// The devices in this process; empty if another process has them.
    package let devices: [any Device]
    private let elsewhere: (any Elsewhere)?
    private let held: Held

    /// The indices of the devices that may hold something.
    ///
    /// Initially all of them: a release that precedes every ``acquire()`` still reaches each device. Calls come from
    /// one thread at a time.
    private final class Held: Sendable {
        let places: Mutex<Set<Int>>

        init(_ places: Range<Int>) {
            self.places = Mutex(Set(places))
        }
    }

    /// Makes a set of devices in this process, whose names must differ.
    package init(_ devices: [any Device]) {
        precondition(Set(devices.map(\.name)).count == devices.count, "two devices of one name")
        self.devices = devices
        elsewhere = nil
        held = Held(devices.indices)
    }

    /// Makes the set of a workload in another process.
    package init(_ elsewhere: any Elsewhere) {
        devices = []
        self.elsewhere = elsewhere
        held = Held(0..<0)
    }

    /// Saves every device of the stopped workload, in order.
    package func save() throws(DeviceError) -> [Saved] {
        if let elsewhere { return try named(DeviceError.allStates) { try elsewhere.save() } }
        var saved: [Saved] = []
        for device in devices {
            saved.append(Saved(name: device.name, state: try named(device.name) { try device.save() }))
        }
        return saved
    }

    /// Saves, while the workload runs, the devices whose state can be sent before the stop, in order.
    package func saveAhead() throws(DeviceError) -> [Saved] {
        var saved: [Saved] = []
        for device in devices {
            guard let state = try named(device.name, { try device.saveAhead() }) else { continue }
            saved.append(Saved(name: device.name, state: state))
        }
        return saved
    }

    func loadEach(_ saved: [Saved]) throws(DeviceError) {
        if let elsewhere { return try named(DeviceError.allStates) { try elsewhere.load(saved) } }
        for state in saved where !devices.contains(where: { $0.name == state.name }) {
            throw DeviceError(device: state.name, reason: "its state arrived, but there is no such device here")
        }
        for device in devices {
            guard let state = saved.first(where: { $0.name == device.name })?.state else {
                throw DeviceError(device: device.name, reason: "no state arrived for it")
            }
            try named(device.name) { try device.load(state) }
        }
    }

    /// Takes what the devices must hold while the workload runs, in order.
    ///
    /// If a device fails, the devices before it are released.
    ///
    /// - Throws: which device failed and why, and which device could not be released; ``release()`` tries that again.
    package func acquire() throws(DeviceError) {
        for (place, device) in devices.enumerated() {
            held.places.withLock { _ = $0.insert(place) }
            do throws(DeviceError) {
                try named(device.name) { try device.acquire() }
            } catch {
                do throws(DeviceError) {
                    try release(before: place)
                } catch let undo {
                    throw DeviceError(device: error.device, reason: "\(error.reason); not undone: \(undo)")
                }
                throw error
            }
        }
    }

    /// Lets another side start the stopped workload: tells a process that has the devices, and releases them.
    ///
    /// - Throws: why no other side may start the workload.
    package func depart() throws(DeviceError) {
        if let elsewhere { try named(DeviceError.allStates) { try elsewhere.depart() } }
        try release()
    }

    /// Gives back what ``acquire()`` took, in reverse order.
    ///
    /// A failure does not keep the remaining devices from being released.
    ///
    /// - Throws: the first failure. A repeated call releases only the devices that have failed.
    package func release() throws(DeviceError) {
        try release(before: devices.count)
    }

    private func release(before end: Int) throws(DeviceError) {
        var failure: DeviceError?
        for place in held.places.withLock({ $0.sorted(by: >) }) where place < end {
            do throws(DeviceError) {
                try named(devices[place].name) { try devices[place].release() }
                held.places.withLock { _ = $0.remove(place) }
            } catch {
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }

    private func named<Value>(_ device: String, _ body: () throws -> Value) throws(DeviceError) -> Value {
        do {
            return try body()
        } catch let error as DeviceError {
            throw error
        } catch {
            throw DeviceError(device: device, reason: "\(error)")
        }
    }
}

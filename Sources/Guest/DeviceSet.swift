import Synchronization

/// All devices of one workload, in the order they are saved and loaded.
public struct DeviceSet: Sendable {
    /// A device's state on its way.
    public struct Saved: Hashable, Sendable {
        /// The device's name.
        public let name: String
        /// What ``Device/save()`` gave.
        public let state: [UInt8]

        /// Makes a saved state out of its parts.
        public init(name: String, state: [UInt8]) {
            self.name = name
            self.state = state
        }
    }

    /// Takes states over on behalf of devices that are not known here.
    public typealias Loader = @Sendable (_ saved: [Saved]) throws -> Void

    /// The devices that live in this process.
    public let devices: [any Device]
    private let loader: Loader?
    private let held: Held

    /// The places of the devices that may hold something. The calls come from one thread at a time.
    private final class Held: Sendable {
        let places: Mutex<Set<Int>>

        init(_ places: Range<Int>) {
            self.places = Mutex(Set(places))
        }
    }

    /// Makes a set; names must differ.
    public init(_ devices: [any Device]) {
        precondition(Set(devices.map(\.name)).count == devices.count, "two devices of one name")
        self.devices = devices
        loader = nil
        held = Held(devices.indices)
    }

    /// Makes the set of a workload in another process, which alone knows its devices.
    ///
    /// - Parameter load: hands all states over, and throws when that process cannot load one.
    public init(elsewhere load: @escaping Loader) {
        devices = []
        loader = load
        held = Held(0..<0)
    }

    /// Saves every device, in order.
    public func save() throws(DeviceError) -> [Saved] {
        var saved: [Saved] = []
        for device in devices {
            saved.append(Saved(name: device.name, state: try named(device.name) { try device.save() }))
        }
        return saved
    }

    func loadEach(_ saved: [Saved]) throws(DeviceError) {
        if let loader { return try named("all devices") { try loader(saved) } }
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

    /// Takes what the devices must hold while the workload runs. If one fails, those before it are undone.
    ///
    /// - Throws: which device failed and why, and what could not be undone: ``release()`` undoes the rest.
    public func acquire() throws(DeviceError) {
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

    /// Gives back what ``acquire()`` took, in reverse order. Every device is asked, also after one has failed.
    ///
    /// - Throws: the first failure. A repeated call asks only the devices that have failed.
    public func release() throws(DeviceError) {
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

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

    /// Makes a set; names must differ.
    public init(_ devices: [any Device]) {
        precondition(Set(devices.map(\.name)).count == devices.count, "two devices of one name")
        self.devices = devices
        loader = nil
    }

    /// Makes the set of a workload in another process, which alone knows its devices.
    ///
    /// - Parameter load: hands all states over, and throws when that process cannot load one.
    public init(elsewhere load: @escaping Loader) {
        devices = []
        loader = load
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
    public func acquire() throws(DeviceError) {
        for (index, device) in devices.enumerated() {
            do throws(DeviceError) {
                try named(device.name) { try device.acquire() }
            } catch {
                devices[..<index].reversed().forEach { $0.release() }
                throw error
            }
        }
    }

    /// Gives back what ``acquire()`` took.
    public func release() {
        devices.reversed().forEach { $0.release() }
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

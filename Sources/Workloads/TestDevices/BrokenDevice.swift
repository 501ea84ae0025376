public import Guest
import Synchronization

/// A device that fails at one step of its way to the other side, to see that nothing runs twice or too early.
public final class BrokenDevice: Device {
    /// Its name.
    public let name: String
    private let step: DeviceSpecification.Step
    private let arrived = Atomic<Bool>(false)

    /// Makes a device that fails at a step.
    public init(name: String = "broken", at step: DeviceSpecification.Step) {
        self.name = name
        self.step = step
    }

    /// Gives a byte, or fails if it is to.
    public func save() throws -> [UInt8] {
        try fail(at: .save)
        return [1]
    }

    /// Takes the byte, or fails if it is to.
    public func load(_ state: [UInt8]) throws {
        try fail(at: .load)
        guard state == [1] else { throw DeviceError(device: name, reason: "its state is not the one it saved") }
        arrived.store(true, ordering: .relaxed)
    }

    /// Fails if it is to and its state was loaded here: the side where the workload was made can start it.
    public func acquire() throws {
        if arrived.load(ordering: .relaxed) { try fail(at: .start) }
    }

    private func fail(at step: DeviceSpecification.Step) throws(DeviceError) {
        guard step == self.step else { return }
        throw DeviceError(device: name, reason: "it fails at \(step.rawValue), as it was asked to")
    }
}

import Guest
import Synchronization

/// A device that fails at one step of a migration, for tests that nothing runs twice or too early.
package final class BrokenDevice: Device {
    /// The device's name.
    package let name: String
    private let step: DeviceSpecification.Step
    private let arrived = Atomic<Bool>(false)

    package init(name: String = "broken", at step: DeviceSpecification.Step) {
        self.name = name
        self.step = step
    }

    /// Returns a state of one byte.
    ///
    /// - Throws: `DeviceError` at step `save`.
    package func save() throws -> [UInt8] {
        try fail(at: .save)
        return [1]
    }

    /// Accepts the state that ``save()`` returns.
    ///
    /// - Throws: `DeviceError` at step `load`, and for any other state.
    package func load(_ state: [UInt8]) throws {
        try fail(at: .load)
        guard state == [1] else { throw DeviceError(device: name, reason: "its state is not the one it saved") }
        arrived.store(true, ordering: .relaxed)
    }

    /// Does nothing, except at step `start` after a load: the workload starts where it was made.
    ///
    /// - Throws: `DeviceError` at step `start`, if a state was loaded here.
    package func acquire() throws {
        if arrived.load(ordering: .relaxed) { try fail(at: .start) }
    }

    private func fail(at step: DeviceSpecification.Step) throws(DeviceError) {
        guard step == self.step else { return }
        throw DeviceError(device: name, reason: "fails at \(step.rawValue), as configured")
    }
}

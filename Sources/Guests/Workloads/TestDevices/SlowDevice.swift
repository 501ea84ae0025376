import Guest
import LinuxSystem
import Synchronization

/// A device that delays one step of a migration, so that a test can act meanwhile.
package final class SlowDevice: Device {
    /// The device's name.
    package let name: String
    private let step: DeviceSpecification.Step
    private let seconds: Double
    private let arrived = Atomic<Bool>(false)

    package init(name: String = "slow", at step: DeviceSpecification.Step, seconds: Double) {
        self.name = name
        self.step = step
        self.seconds = seconds
    }

    /// Returns a state of one byte, after the delay at step `save`.
    package func save() -> [UInt8] {
        rest(at: .save)
        return [1]
    }

    /// Accepts the state that ``save()`` returns, after the delay at step `load`.
    ///
    /// - Throws: `DeviceError` for any other state.
    package func load(_ state: [UInt8]) throws {
        rest(at: .load)
        guard state == [1] else { throw DeviceError(device: name, reason: "its state is not the one it saved") }
        arrived.store(true, ordering: .relaxed)
    }

    /// Waits for the delay at step `start`, if a state was loaded here.
    package func acquire() {
        if arrived.load(ordering: .relaxed) { rest(at: .start) }
    }

    private func rest(at step: DeviceSpecification.Step) {
        guard step == self.step else { return }
        MonotonicClock.sleep(nanoseconds: UInt64(seconds * 1e9))
    }
}

public import Guest
import LinuxSystem
import Synchronization

/// A device that takes its time for one step of its way to the other side, so that one can step in meanwhile.
public final class SlowDevice: Device {
    /// Its name.
    public let name: String
    private let step: DeviceSpecification.Step
    private let seconds: Double
    private let arrived = Atomic<Bool>(false)

    /// Makes a device that takes `seconds` for a step.
    public init(name: String = "slow", at step: DeviceSpecification.Step, seconds: Double) {
        self.name = name
        self.step = step
        self.seconds = seconds
    }

    /// Gives a byte, in time.
    public func save() -> [UInt8] {
        rest(at: .save)
        return [1]
    }

    /// Takes the byte, in time.
    public func load(_ state: [UInt8]) throws {
        rest(at: .load)
        guard state == [1] else { throw DeviceError(device: name, reason: "its state is not the one it saved") }
        arrived.store(true, ordering: .relaxed)
    }

    /// Takes its time if it is to and its state was loaded here.
    public func acquire() {
        if arrived.load(ordering: .relaxed) { rest(at: .start) }
    }

    private func rest(at step: DeviceSpecification.Step) {
        guard step == self.step else { return }
        MonotonicClock.sleep(nanoseconds: UInt64(seconds * 1e9))
    }
}

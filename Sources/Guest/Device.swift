/// A part of a workload's state beside its memory: registers, a clock, a console, a disk.
///
/// Its state travels at switchover, while nothing runs. Every call comes from one thread at a time.
public protocol Device: AnyObject, Sendable {
    /// Which device it is, unique within its workload; at most 64 bytes.
    var name: String { get }

    /// The device's state, to be loaded by a device of the same name elsewhere. The workload is stopped.
    func save() throws -> [UInt8]

    /// Takes a saved state over. May touch the workload's memory, whose pages then arrive by fault.
    func load(_ state: [UInt8]) throws

    /// Takes what must be held while the workload runs here, such as a disk lock. Called before every start.
    func acquire() throws

    /// Gives back what ``acquire()`` took. Called after the workload stopped and before another side may start.
    ///
    /// - Throws: what could not be given back; then the device still holds that part, and the next call tries it again.
    func release() throws
}

extension Device {
    /// Nothing to take.
    public func acquire() throws {}

    /// Nothing to give back.
    public func release() {}
}

/// A device that failed, with the reason for a person.
public struct DeviceError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The device's name.
    public let device: String
    /// Why, in one line.
    public let reason: String

    /// Makes an error out of its parts.
    public init(device: String, reason: String) {
        self.device = device
        self.reason = reason
    }

    /// One line that names the device.
    public var description: String { "device '\(device)': \(reason)" }
}

/// A part of a workload's state beside its memory: registers, a clock, a console, a disk.
///
/// A device's state travels at switchover, while nothing runs. Calls come from one thread at a time.
package protocol Device: AnyObject, Sendable {
    /// The device's name, unique within its workload; at most 64 bytes.
    var name: String { get }

    /// Saves the state that a device of the same name loads at the destination.
    ///
    /// Called while the workload is stopped.
    ///
    /// - Throws: why the state cannot be saved.
    func save() throws -> [UInt8]

    /// Saves the current state of a running workload's device, to be sent before the stop.
    ///
    /// A state that has changed by the stop is sent again.
    ///
    /// - Returns: nil if the device can be saved only while the workload is stopped.
    /// - Throws: why the state cannot be saved.
    func saveAhead() throws -> [UInt8]?

    /// Replaces the device's state with a saved one.
    ///
    /// The device may touch the workload's memory; absent pages then arrive by fault.
    ///
    /// - Throws: why the state cannot be loaded.
    func load(_ state: [UInt8]) throws

    /// Takes what the device must hold while the workload runs here, such as a disk lock.
    ///
    /// Called before every start on this host: the first, and each resume.
    ///
    /// - Throws: what could not be taken; the workload is then not started.
    func acquire() throws

    /// Gives back what ``acquire()`` took.
    ///
    /// Called after the workload has stopped and before another side may start it.
    ///
    /// - Throws: what could not be given back. The device still holds that part, and the next call tries it again.
    func release() throws
}

extension Device {
    /// Sends no state ahead by default.
    package func saveAhead() -> [UInt8]? { nil }

    /// Does nothing by default.
    package func acquire() throws {}

    /// Does nothing by default.
    package func release() {}
}

/// The failure of one device.
package struct DeviceError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The device name in errors of a workload whose states are all loaded at once, by another process.
    package static let allStates = "states"

    /// The device's name.
    package let device: String
    /// The reason, one line for a person.
    package let reason: String

    /// Makes an error; `reason` must be one line.
    package init(device: String, reason: String) {
        self.device = device
        self.reason = reason
    }

    /// The device and the reason, in one line; only the reason if it is about all states.
    package var description: String { device == DeviceError.allStates ? reason : "device '\(device)': \(reason)" }
}

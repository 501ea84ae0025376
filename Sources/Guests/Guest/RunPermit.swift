/// Proof that every device of a workload holds the state that the workload must run with.
///
/// Only this file can make a proof. ``DeviceSet/load(_:)`` returns one when all devices have loaded.
public struct DevicesLoaded: ~Copyable, Sendable {
    fileprivate init() {}

    /// Makes the proof for a workload that was made in this process, or was stopped here and never ran elsewhere since.
    @_spi(Controller)
    public static func inPlace() -> DevicesLoaded {
        DevicesLoaded()
    }
}

extension DeviceSet {
    /// Loads every device, in order, and returns the proof.
    ///
    /// - Throws: the first device that fails or for which no state arrived, or the first state that has no device here.
    package func load(_ saved: [Saved]) throws(DeviceError) -> DevicesLoaded {
        try loadEach(saved)
        return DevicesLoaded()
    }
}

/// The right to run a workload once.
///
/// ``Workload/run(_:)`` consumes a permit, and only the controller makes one, out of ``DevicesLoaded``. Code that would
/// run a workload before its devices have loaded does therefore not compile.
public struct RunPermit: ~Copyable, Sendable {
    /// Exchanges the proof that the devices have loaded for the right to run.
    @_spi(Controller)
    public init(_ proof: consuming DevicesLoaded) {}
}

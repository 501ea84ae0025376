/// Proof that every device of a workload holds the state it is to run with.
///
/// Nobody outside this file can make one: ``DeviceSet/load(_:)`` gives it when all devices have loaded.
public struct DevicesLoaded: ~Copyable, Sendable {
    fileprivate init() {}

    /// The proof for a workload that never left: made in this process, or stopped here with its newest state.
    @_spi(Controller)
    public static func inPlace() -> DevicesLoaded {
        DevicesLoaded()
    }
}

extension DeviceSet {
    /// Loads every device, in order: the only way to a proof that they are loaded.
    ///
    /// - Throws: the first device that fails, or that has no state here, or a state that has no device here.
    public func load(_ saved: [Saved]) throws(DeviceError) -> DevicesLoaded {
        try loadEach(saved)
        return DevicesLoaded()
    }
}

/// The right to run a workload once. ``Workload/run(_:)`` consumes it, and only the controller mints it: code that
/// would run a workload before its devices have loaded does not compile.
public struct RunPermit: ~Copyable, Sendable {
    /// Turns the proof that the devices have loaded into the right to run.
    @_spi(Controller)
    public init(_ proof: consuming DevicesLoaded) {}
}

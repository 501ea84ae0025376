@_spi(Controller) import Guest

/// Starts workloads: the only place where a ``RunPermit`` is made.
enum WorkloadStart {
    /// Starts an arrived workload, whose devices have just loaded the state of its source.
    ///
    /// - Parameters:
    ///   - workload: the arrived workload.
    ///   - proof: shows that all devices have loaded.
    /// - Throws: why the start failed; the workload has then executed nothing.
    static func arrived(_ workload: any Workload, _ proof: consuming DevicesLoaded) throws -> StartResult {
        try workload.run(RunPermit(proof))
    }

    /// Starts a workload that was made or stopped in this process, and has not moved away since.
    ///
    /// - Throws: why the start failed; the workload has then executed nothing.
    static func again(_ workload: any Workload) throws -> StartResult {
        try workload.run(RunPermit(.inPlace()))
    }

    /// Starts a workload like ``again(_:)``, and throws also if the workload has ended after its start.
    ///
    /// For callers that need not know whether a workload that does not run has executed something.
    ///
    /// - Throws: why the workload does not run.
    static func inPlace(_ workload: any Workload) throws {
        if case .ended(let reason) = try again(workload) {
            throw WorkloadHasEnded(reason: reason)
        }
    }
}

/// The error for a workload that has ended, so that no other attempt can start it.
struct WorkloadHasEnded: Error, CustomStringConvertible {
    /// Why the workload has ended.
    let reason: String
    var description: String { "the workload has ended: \(reason)" }
}

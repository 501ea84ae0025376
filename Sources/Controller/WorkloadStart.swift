@_spi(Controller) import Guest

/// Starts workloads: the only place where a ``RunPermit`` is minted.
enum WorkloadStart {
    /// Starts a workload whose devices have just loaded a state that came from elsewhere.
    ///
    /// - Throws: when the start provably executed nothing.
    static func arrived(_ workload: any Workload, _ proof: consuming DevicesLoaded) throws -> StartResult {
        try workload.run(RunPermit(proof))
    }

    /// Starts a workload that was made in this process, or stopped in it, and has not been given away since.
    ///
    /// - Throws: when the start provably executed nothing.
    static func again(_ workload: any Workload) throws -> StartResult {
        try workload.run(RunPermit(.inPlace()))
    }

    /// As ``again(_:)``, for those to whom it makes no difference whether a workload that does not run has executed.
    ///
    /// - Throws: why the workload does not run.
    static func inPlace(_ workload: any Workload) throws {
        if case .ended(let reason) = try again(workload) {
            throw CommandRefused(reason: "the workload was started and has ended: \(reason)")
        }
    }
}

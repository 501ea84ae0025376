@_spi(Controller) import Guest

/// Starts workloads: the only place where a ``RunPermit`` is minted.
enum WorkloadStart {
    /// Starts a workload whose devices have just loaded a state that came from elsewhere.
    ///
    /// - Throws: when the start provably executed nothing.
    static func arrived(_ workload: any Workload, _ proof: consuming DevicesLoaded) throws {
        try workload.run(RunPermit(proof))
    }

    /// Starts a workload that was made in this process, or stopped in it, and has not been given away since.
    ///
    /// - Throws: when the start provably executed nothing.
    static func inPlace(_ workload: any Workload) throws {
        try workload.run(RunPermit(.inPlace()))
    }
}

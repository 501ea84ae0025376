/// Keeps the run leases of workloads where both sides of a migration reach them, and decides which proposal is first.
///
/// Every call blocks until the store has answered.
package protocol RunLeaseStore: Sendable {
    /// The store's own name, the same from every host; the two sides compare it to check that they use one store.
    var name: String { get }

    /// The place on this host where a person finds a workload's records.
    func place(of workload: String) -> String

    /// The record of a workload's newest epoch; nil if the workload has none yet.
    func newest(_ workload: String) throws(RunLeaseError) -> LeaseRecord?

    /// The record of one epoch, whether or not newer epochs exist; nil if that epoch has none.
    func record(of epoch: UInt64, for workload: String) throws(RunLeaseError) -> LeaseRecord?

    /// Tries to make `record` the record of its epoch, if the record before it is still `predecessor`.
    ///
    /// The comparison and the exclusive creation are one step: of all records that are ever proposed for an epoch, one
    /// wins for good. Proposing the winner again, after its answer was lost, wins again, even if later epochs exist.
    ///
    /// - Parameters:
    ///   - record: the proposed record.
    ///   - predecessor: the record of the epoch before; nil for epoch 1.
    ///   - workload: the workload's name.
    /// - Returns: `lost` also if the epoch before has another record than `predecessor`.
    func propose(
        _ record: LeaseRecord,
        following predecessor: LeaseRecord?,
        for workload: String
    ) throws(RunLeaseError) -> LeaseProposal
}

extension RunLeaseStore {
    /// The record of the epoch before that of `record`; nil if there is none.
    package func predecessor(of record: LeaseRecord, for workload: String) throws(RunLeaseError) -> LeaseRecord? {
        record.epoch > 1 ? try self.record(of: record.epoch - 1, for: workload) : nil
    }
}

/// The outcome of a proposal.
package enum LeaseProposal: Hashable, Sendable {
    /// The proposed record is the record of its epoch, durably.
    case won
    /// Another record has the epoch of the proposed record, or the epoch before.
    case lost(newest: LeaseRecord)
}

/// The error of a store that could not answer a call.
package struct RunLeaseError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What failed, on what, and why, in one line.
    package let description: String
    /// Whether the proposed record may have been written, or may still be.
    ///
    /// False only if this call provably wrote nothing under the epoch's name; earlier calls do not count.
    package let mayHaveBeenWritten: Bool

    package init(_ description: String, mayHaveBeenWritten: Bool = false) {
        self.description = description
        self.mayHaveBeenWritten = mayHaveBeenWritten
    }
}

/// Keeps the run leases of workloads where both sides of a migration reach them, and decides who comes first.
///
/// Calls block for as long as the store takes.
public protocol RunLeaseStore: Sendable {
    /// What the two sides compare to know that they use one store: it is the store's own, wherever it is seen from.
    var name: String { get }

    /// Where a person on this host finds a workload's records.
    func place(of workload: String) -> String

    /// The record of a workload's last epoch; nil if it has none yet.
    func newest(_ workload: String) throws(RunLeaseError) -> LeaseRecord?

    /// The record of one epoch, whatever has followed; nil if there is none.
    func record(of epoch: UInt64, for workload: String) throws(RunLeaseError) -> LeaseRecord?

    /// Tries to make a record the one of its epoch, if the record before it is still the one that the proposer has seen.
    ///
    /// A compare and an exclusive creation in one step: of all the records that are ever proposed for an epoch, one wins,
    /// for good. Proposing it again, after an answer that got lost, wins again, also when later epochs have followed.
    ///
    /// - Parameter predecessor: the record of the epoch before; nil for epoch 1.
    /// - Returns: `lost` also where another record than `predecessor` has the epoch before.
    func propose(
        _ record: LeaseRecord,
        following predecessor: LeaseRecord?,
        for workload: String
    ) throws(RunLeaseError) -> LeaseProposal
}

extension RunLeaseStore {
    /// The record of the epoch before a record's; nil if there is none.
    public func predecessor(of record: LeaseRecord, for workload: String) throws(RunLeaseError) -> LeaseRecord? {
        record.epoch > 1 ? try self.record(of: record.epoch - 1, for: workload) : nil
    }
}

/// What became of a record that was proposed.
public enum LeaseProposal: Hashable, Sendable {
    /// It is the record of its epoch, durably.
    case won
    /// It is not: another record has its epoch, or the epoch before.
    case lost(newest: LeaseRecord)
}

/// A store that did not answer what it was asked.
public struct RunLeaseError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What failed, on what, and why, in one line.
    public let description: String
    /// Whether the proposed record may have become its epoch's, or may yet: false only if this call provably wrote
    /// nothing under the epoch's name. It does not speak of earlier calls.
    public let mayHaveBeenWritten: Bool

    /// Makes an error out of its parts.
    public init(_ description: String, mayHaveBeenWritten: Bool = false) {
        self.description = description
        self.mayHaveBeenWritten = mayHaveBeenWritten
    }
}

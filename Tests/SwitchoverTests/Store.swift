/// Who takes part in the world: the two sides of the migration that is walked, and a third host.
enum Side: Hashable { case source, destination, third }

/// The run lease's store: of all records, the newest, which decides about the next.
struct Store: Hashable {
    struct Record: Hashable {
        var epoch: UInt64
        var owner: Side
        /// The RUN that it was written for; 0 for none.
        var token: UInt64 = 0
        var started = true

        /// Nobody runs the workload by it, and anybody may follow it.
        var isReleased: Bool { !started && token == 0 }
    }

    /// A record on its way, and the owner of the record that its writer has seen before it.
    struct Proposal: Hashable {
        var record: Record
        var following: Side
    }

    /// nil once somebody has removed all records.
    var newest: Record? = Record(epoch: 1, owner: .source)

    /// Whether a record becomes the one of its epoch, or is.
    mutating func accepts(_ proposal: Proposal, checksOwner: Bool = true) -> Bool {
        guard let newest, newest != proposal.record else { return newest != nil }
        guard newest.epoch + 1 == proposal.record.epoch, !checksOwner || newest.owner == proposal.following else {
            return false
        }
        self.newest = proposal.record
        return true
    }

    /// Whether a source that asks after its RUN finds the lease its own.
    mutating func seize(_ grant: UInt64, after epoch: UInt64) -> Bool {
        let record = Record(epoch: epoch + 1, owner: .source, token: grant)
        let isGivenBack = newest == Record(epoch: epoch + 2, owner: .source, token: grant, started: false)
        return isGivenBack || accepts(Proposal(record: record, following: .source))
    }
}

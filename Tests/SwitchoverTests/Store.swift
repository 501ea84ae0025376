/// A participant of the world: a side of the walked migration, or the third host.
enum Side: Hashable { case source, destination, third }

/// The run lease's store, with only the newest record, which decides about the next.
struct Store: Hashable {
    struct Record: Hashable {
        var epoch: UInt64
        var owner: Side
        /// The token of the RUN for which the record was written; 0 for none.
        var token: UInt64 = 0
        var started = true

        /// Whether no side runs the workload by this record, so that any owner may follow it.
        var isReleased: Bool { !started && token == 0 }
    }

    /// A record on its way to the store, and the owner of the previous record that its writer has seen.
    struct Proposal: Hashable {
        var record: Record
        var following: Side
    }

    /// The newest record; nil once all records were removed.
    var newest: Record? = Record(epoch: 1, owner: .source)

    /// Stores a record as the next one, and returns whether it is now the newest.
    mutating func accepts(_ proposal: Proposal, checksOwner: Bool = true) -> Bool {
        guard let newest, newest != proposal.record else { return newest != nil }
        guard newest.epoch + 1 == proposal.record.epoch, !checksOwner || newest.owner == proposal.following else {
            return false
        }
        self.newest = proposal.record
        return true
    }

    /// Seizes the lease for a source after its RUN, and returns whether the lease is now the source's.
    mutating func seize(_ grant: UInt64, after epoch: UInt64) -> Bool {
        let record = Record(epoch: epoch + 1, owner: .source, token: grant)
        let isGivenBack = newest == Record(epoch: epoch + 2, owner: .source, token: grant, started: false)
        return isGivenBack || accepts(Proposal(record: record, following: .source))
    }
}

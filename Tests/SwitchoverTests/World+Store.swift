import Identity
import Switchover

/// The requests of the drivers to the run lease's store.
extension World {
    /// The record with which the source takes the lease after its RUN.
    func proposal(of grant: RunGrant) -> Store.Proposal {
        Store.Proposal(
            record: Store.Record(epoch: grant.epoch + 1, owner: .source, token: grant.token.value),
            following: .source
        )
    }

    private func commit(of grant: RunGrant) -> Store.Proposal {
        Store.Proposal(
            record: Store.Record(epoch: grant.epoch + 1, owner: .destination, token: grant.token.value),
            following: .source
        )
    }

    private func giveBack(of grant: RunGrant) -> Store.Proposal {
        let token = grant.token.value
        return Store.Proposal(
            record: Store.Record(epoch: grant.epoch + 2, owner: .source, token: token, started: false),
            following: .destination
        )
    }

    mutating func decide(_ operation: SourceOperation) {
        sourceOperations.remove(operation)
        switch operation {
        case .seizeLease(let grant):
            sourceOperations.insert(.seizeDecided(store.seize(grant.token.value, after: grant.epoch)))
        case .regainLease(let token): sourceOperations.insert(regainStep(token))
        case .regainWrites(let token, let seen):
            let record = Store.Record(epoch: seen.epoch + 1, owner: .source)
            let isWritten = store.accepts(Store.Proposal(record: record, following: seen.owner))
            sourceOperations.insert(isWritten ? .regainDecided(true) : .regainLease(token))
        case .connect, .redial, .resync, .proceed, .prepare, .stop, .save, .releaseLocks, .resume, .seizeDecided,
            .regainDecided:
            break
        }
    }

    /// The next operation of a source with a promise, after it has read the newest record.
    private func regainStep(_ token: RunToken) -> SourceOperation {
        guard let newest = store.newest else { return .regainDecided(false) }
        if newest.owner == .source {
            return newest.isReleased ? .regainWrites(token, over: newest) : .regainDecided(true)
        }
        let isPromised = newest.owner == .destination && newest.token == token.value
        if isPromised || !driver.regainsOnlyWhatWasPromised { return .regainWrites(token, over: newest) }
        return .regainDecided(false)
    }

    mutating func decide(_ operation: DestinationOperation) {
        destinationOperations.remove(operation)
        switch operation {
        case .commitLease(let grant):
            let isWon = store.accepts(commit(of: grant), checksOwner: driver.checksOwner)
            destinationOperations.insert(.commitDecided(isWon))
        case .returnLease(let grant):
            _ = store.accepts(giveBack(of: grant))
            destinationOperations.insert(.returnDecided)
        case .proceed, .prepareMemory, .loadDevices, .acquire, .start, .undo, .commitDecided, .returnDecided: break
        }
    }

    /// Keeps the records that were on their way to the store when their writer died, since they may still arrive.
    mutating func strayWrites(of operations: Multiset<SourceOperation>) {
        for case .seizeLease(let grant) in operations { strays.insert(proposal(of: grant)) }
        for case .regainWrites(_, let seen) in operations {
            let record = Store.Record(epoch: seen.epoch + 1, owner: .source)
            strays.insert(Store.Proposal(record: record, following: seen.owner))
        }
    }

    mutating func strayWrites(of operations: Multiset<DestinationOperation>) {
        for operation in operations {
            switch operation {
            case .commitLease(let grant): strays.insert(commit(of: grant))
            case .returnLease(let grant): strays.insert(giveBack(of: grant))
            case .proceed, .prepareMemory, .loadDevices, .acquire, .start, .undo, .commitDecided, .returnDecided: break
            }
        }
    }

    /// Releases the lease of an agent that exits with its workload.
    mutating func release(by side: Side, if ran: Bool) {
        guard setting.usesLease, ran, let newest = store.newest, newest.owner == side, !newest.isReleased else {
            return
        }
        store.newest = Store.Record(epoch: newest.epoch + 1, owner: side, started: false)
    }
}

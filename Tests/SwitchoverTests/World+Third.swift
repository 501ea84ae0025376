import Identity
import Switchover

/// Another migration of the same workload to a third host, or its new start there.
extension World {
    func isAlive(_ side: Side) -> Bool {
        switch side {
        case .source: isSourceAlive
        case .destination: isDestinationAlive
        case .third: true
        }
    }

    /// Whether every side that may run the workload by the newest record has died.
    ///
    /// If the owner is the destination, the source must be dead too, since it may hold a promise that nothing starts.
    var ownerIsDead: Bool {
        guard let newest = store.newest, !isAlive(newest.owner) else { return false }
        return newest.owner != .destination || !isSourceAlive || !driver.takesOverFromBoth
    }

    /// Whether a side's machine and the lease allow the side to move its workload to the third host.
    func mayMoveOn(from side: Side) -> Bool {
        switch side {
        case .source:
            guard isSourceAlive, runsOnSource, source.isWorkloadHere, !source.isRegainingLease else { return false }
            guard source.state == .failed || source.state == .cancelled else { return false }
            return !setting.usesLease || epochToMove != nil
        case .destination:
            guard isDestinationAlive, runsOnDestination, destination.state == .completed else { return false }
            return !setting.usesLease || store.newest?.owner == .destination
        case .third: return false
        }
    }

    /// The epoch of the source when it begins anew, after it has followed a promised record; nil if it cannot.
    private var epochToMove: UInt64? {
        guard let newest = store.newest else { return nil }
        if newest.owner == .source, !newest.isReleased { return newest.epoch }
        let isPromised = newest.owner == .destination && promised.contains(newest.token)
        return isPromised && driver.followsPromises ? newest.epoch + 1 : nil
    }

    /// Whether the third host's record would follow the record that RUN names.
    var thirdFollows: Bool {
        guard case .granted(let side, let epoch) = third, let newest = store.newest else { return false }
        return newest.epoch == epoch && (newest.owner == side || !driver.checksOwner)
    }

    mutating func take(_ event: ThirdEvent) {
        switch event {
        case .moves(from: let side): move(from: side)
        case .commits:
            if setting.usesLease, let newest = store.newest {
                store.newest = Store.Record(epoch: newest.epoch + 1, owner: .third, token: World.thirdToken)
            }
            third = .runs
            newest = .third
        case .refuses:
            guard case .granted(let side, _) = third else { return }
            third = .none
            if side == .source {
                runsOnSource = isSourceAlive
                sourceMovedOn = false
            } else {
                runsOnDestination = isDestinationAlive
            }
        case .takesOver:
            guard let newest = store.newest else { return }
            store.newest =
                driver.takesOver
                ? Store.Record(epoch: newest.epoch + 1, owner: newest.owner, started: false) : nil
        case .begins:
            thirdsLeft -= 1
            store.newest = Store.Record(epoch: (store.newest?.epoch ?? 0) + 1, owner: .third)
            third = .runs
            newest = .third
        }
    }

    private mutating func move(from side: Side) {
        thirdsLeft -= 1
        let epoch: UInt64
        switch side {
        case .source:
            epoch = epochToMove ?? 0
            if setting.usesLease, store.newest?.owner == .destination {
                store.newest = Store.Record(epoch: epoch, owner: .source)
            }
            runsOnSource = false
            sourceHoldsLocks = false
            sourceMovedOn = true
        case .destination, .third:
            epoch = store.newest?.epoch ?? 0
            runsOnDestination = false
            if !driver.remembersMigrations { destination = DestinationMachine() }
        }
        third = .granted(by: side, epoch: setting.usesLease ? epoch : 0)
    }

    /// The token of the RUN to the third host, which differs from all tokens of this migration.
    private static let thirdToken: UInt64 = 99
}

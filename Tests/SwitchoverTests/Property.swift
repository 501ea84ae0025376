import Switchover

/// What has to hold in every reachable world.
enum Property: String, CaseIterable {
    case neverBothRun = "both sides run"
    case newestStateRuns = "the source runs on although the destination has run"
    case devicesBeforeRun = "the destination runs before its devices have loaded and the source knows it"
    case takeBack = "RUN is not out, and the source cannot take the workload back by itself"
    case promiseHolds = "the source holds a promise for its last RUN, and the destination runs"
    case leaseNamesRunner = "the destination runs, and the lease names the source"
    case locksAreFreeBeforeRun = "RUN is sent while the source holds the disk locks"
    case undoneBeforePromise = "a promise is sent while hooks and disk locks are held"
    case runningIsTrue = "the source has heard RUNNING, and the destination has not started"
    case everyMessageIsExpected = "a side takes its peer's message for a breach of the protocol"
    case contTellsTheTruth = "an answer to cont is not the real result"
    case cancelTellsTheTruth = "an answer to cancel is not the real result"
    case completedIsComplete = "the source has completed, and pages are missing or nothing has started"
    case linksAreTold = "an event of an earlier link is taken for one of the link that stands"
    case isRemembered = "a source comes again for a workload that has come, and the destination does not know it"
    case endIsPolite = "an agent that was told to end leaves a question behind that only it could answer"
    case leaseComesHome = "the workload runs on the source for good, and no way leads to a lease of its own"
    case machinesKnow = "a machine's own account of who runs or may run is wrong"
    case noDeadEnd = "nothing can happen any more, and the workload does not run where its newest state is"

    /// Its place among all.
    var number: UInt64 { UInt64(Property.allCases.firstIndex(of: self) ?? 0) }

    /// Whether it holds in `world`, in which nothing happens by itself any more if `isQuiet`.
    func holds(in world: World, _ isQuiet: Bool, by behaviour: Behaviour) -> Bool {
        switch self {
        case .neverBothRun: world.runners <= 1
        case .newestStateRuns: world.runners == 0 || world.runsWhereItShould
        case .devicesBeforeRun: !world.runsOnDestination || world.devicesLoaded && world.heardPong
        case .takeBack: world.runIsOut || !world.isSourceAlive || world.resumeFailed || world.takesBack(by: behaviour)
        case .promiseHolds: !(world.heardPromise && world.runsOnDestination)
        case .leaseNamesRunner:
            !world.setting.usesLease || world.leaseNamesRunner
        case .locksAreFreeBeforeRun, .undoneBeforePromise, .everyMessageIsExpected, .contTellsTheTruth,
            .cancelTellsTheTruth, .linksAreTold, .isRemembered, .endIsPolite:
            !world.misdeeds.contains(self)
        case .runningIsTrue: !world.heardRunning || world.newest != .source
        case .completedIsComplete:
            world.source.state != .completed || world.newest != .source && world.allPagesResident
        case .leaseComesHome: !isQuiet || world.leaseComesHome
        case .machinesKnow: world.machinesKnow
        case .noDeadEnd: !isQuiet || world.isAllowedEnd
        }
    }
}

extension World {
    fileprivate var runners: Int { [runsOnSource, runsOnDestination, runsOnThird].count { $0 } }

    fileprivate var leaseNamesRunner: Bool {
        (!runsOnDestination || store.newest?.owner == .destination) && (!runsOnThird || store.newest?.owner == .third)
    }

    /// The source that runs the workload can move it again.
    fileprivate var leaseComesHome: Bool {
        guard setting.usesLease, runsOnSource, source.state == .failed || source.state == .cancelled else {
            return true
        }
        return mayMoveOn(from: .source)
    }

    /// Whether the workload comes to run on the source when the destination is gone and every operation of the source
    /// succeeds.
    fileprivate func takesBack(by behaviour: Behaviour) -> Bool {
        guard source.state != .none, third == .none else { return third != .none || runsOnSource }
        var world = self
        if world.isDestinationAlive { _ = world.take(.destinationDies, by: behaviour) }
        for operation in world.sourceOperations.distinct where operation.isConnecting {
            _ = world.take(.source(.ended(operation, .failure)), by: behaviour)
        }
        if world.sourceLink == .up { _ = world.take(.source(.linkLost), by: behaviour) }
        while let operation = world.sourceOperations.distinct.first {
            switch operation {
            case .seizeLease, .regainLease, .regainWrites:
                _ = world.take(.source(.storeDecides(operation)), by: behaviour)
            case .connect, .redial: _ = world.take(.source(.ended(operation, .failure)), by: behaviour)
            case .seizeDecided(let isDone), .regainDecided(let isDone):
                _ = world.take(.source(.ended(operation, isDone ? .success : .failure)), by: behaviour)
            case .resync, .proceed, .stop, .save, .releaseLocks, .resume:
                _ = world.take(.source(.ended(operation, .success)), by: behaviour)
            }
        }
        return world.runsOnSource && (world.source.state == .failed || world.source.state == .cancelled)
    }

    fileprivate var machinesKnow: Bool {
        if isSourceAlive {
            if source.isTakeBackPossible == runIsOut { return false }
            if source.isWorkloadHere && !runsOnSource && third == .none { return false }
            if source.state == .failed || source.state == .postcopyPaused, source.failureReason == nil { return false }
        }
        // Of what has moved on, or has ended, the machine tells that it has come.
        return !isDestinationAlive || hasDied || third != .none || destination.isCommitted == runsOnDestination
    }

    /// The ends that a world may come to rest in: the workload runs where its newest state is, or it is one of the
    /// windows that are known and named.
    fileprivate var isAllowedEnd: Bool {
        // A `cont` may wait for a source to come, or for a start that hangs; a `cancel` for nothing.
        if contWaits && destination.state != .setup && !isHanging { return false }
        if cancelWaits { return false }
        if isHanging { return true }
        return switch newest {
        case .source: isAllowedEndOnSource
        case .destination: isAllowedEndOnDestination
        case .third: isAllowedEndOnThird
        }
    }

    /// Something does not end that may take for ever.
    private var isHanging: Bool {
        setting.hangs
            && (sourceOperations.contains { [.stop, .save, .releaseLocks, .resume].contains($0) }
                || destinationOperations.contains { [.acquire, .start, .undo].contains($0) })
    }

    private var isAllowedEndOnDestination: Bool {
        // A destination that dies after its commit point leaves nobody running, as does a workload that ends.
        let destinationIsRight =
            !isDestinationAlive || hasDied
            || runsOnDestination && destination.state == (allPagesResident ? .completed : .postcopyPaused)
        return sourceKnowsItHasGone && destinationIsRight
    }

    private var isAllowedEndOnThird: Bool {
        if !runsOnThird { return false }
        if runsOnSource || runsOnDestination { return false }
        return sourceKnowsItHasGone || source.state == .failed || source.state == .cancelled
    }

    /// The workload has left the source, which knows that as far as it can be told.
    private var sourceKnowsItHasGone: Bool {
        guard isSourceAlive else { return true }
        if source.state == .completed { return heardRunning || !setting.tellsStart }
        if isDestinationAlive && !hasDied { return source.state == .postcopyPaused && relinksLeft == 0 }
        // The operator's word has made the pause a failure.
        return source.state == (setting.operatorSpeaks ? .failed : .postcopyPaused)
    }

    private var isAllowedEndOnSource: Bool {
        // The source took its state with it; whatever the destination has, it does not run.
        guard isSourceAlive else { return !runsOnDestination }
        if runsOnSource { return (source.state == .failed || source.state == .cancelled) && isStoppedRightly }
        return isHeldBack || isUndecided || isWaitingForOperator
    }

    /// The source runs: a destination that it had not refused knows that, if it could be told.
    private var isStoppedRightly: Bool {
        guard isDestinationAlive else { return true }
        // What waits for `cont` meets the lease then.
        if setting.usesLease, destination.awaitsCont { return gaveUpRedial || relinksLeft == 0 }
        switch destination.state {
        case .failed, .cancelled, .setup: return true
        case .postcopyDevice:
            return destination.mayLeave || destination.failureReason != nil && (gaveUpRedial || relinksLeft == 0)
        case .none, .active, .device, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup, .postcopyRecover,
            .completed, .cancelling:
            return false
        }
    }

    /// The source's own disk locks could not be taken, and the operator has no more tries.
    private var isHeldBack: Bool {
        resumeFailed && (source.state == .failed || source.state == .cancelled) && retriesLeft == 0
    }

    /// The link broke with RUN out, and no further link can be made: the source cannot know, and stays stopped.
    var isUndecided: Bool {
        guard runIsOut, !heardRunning, source.state == .postcopyPaused else { return false }
        return isDestinationAlive
            ? relinksLeft == 0 && destination.state == .postcopyDevice : !setting.operatorSpeaks && !setting.usesLease
    }

    /// Only another `cont` goes on from here.
    private var isWaitingForOperator: Bool {
        isDestinationAlive && contsLeft == 0 && source.state == .postcopyActive
            && destination.state == .postcopyDevice
            && (heardPromise ? setting.policy == .wait : setting.startsStopped)
    }
}

extension SourceOperation {
    fileprivate var isConnecting: Bool {
        switch self {
        case .connect, .redial: true
        case .resync, .proceed, .stop, .save, .releaseLocks, .resume, .seizeLease, .seizeDecided, .regainLease,
            .regainWrites, .regainDecided:
            false
        }
    }
}

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
    case machinesKnow = "a machine's own account of who runs or may run is wrong"
    case noDeadEnd = "nothing can happen any more, and the workload does not run where its newest state is"

    /// Whether it holds in `world`.
    func holds(in world: World, by behaviour: Behaviour) -> Bool {
        switch self {
        case .neverBothRun: !(world.runsOnSource && world.runsOnDestination)
        case .newestStateRuns: !(world.runsOnSource && world.newestOnDestination)
        case .devicesBeforeRun: !world.runsOnDestination || world.devicesLoaded && world.heardPong
        case .takeBack: world.runIsOut || !world.isSourceAlive || world.resumeFailed || world.takesBack(by: behaviour)
        case .promiseHolds: !(world.heardPromise && world.runsOnDestination)
        case .leaseNamesRunner:
            !world.setting.usesLease || !world.runsOnDestination || world.lease.owner == .destination
        case .locksAreFreeBeforeRun, .undoneBeforePromise, .everyMessageIsExpected, .contTellsTheTruth,
            .cancelTellsTheTruth:
            !world.misdeeds.contains(self)
        case .runningIsTrue: !world.heardRunning || world.newestOnDestination
        case .completedIsComplete:
            world.source.state != .completed || world.newestOnDestination && world.allPagesResident
        case .machinesKnow: world.machinesKnow
        case .noDeadEnd: !world.isQuiet || world.isAllowedEnd
        }
    }
}

extension World {
    /// Whether the workload comes to run on the source when the destination is gone and every operation of the source
    /// succeeds.
    fileprivate func takesBack(by behaviour: Behaviour) -> Bool {
        guard source.state != .none else { return runsOnSource }
        var world = self
        if world.isDestinationAlive { _ = world.take(.destinationDies, by: behaviour) }
        for operation in [SourceOperation.connect, .redial] where world.sourceOperations.contains(operation) {
            _ = world.take(.source(.ended(operation, .failure)), by: behaviour)
        }
        if world.sourceLink == .up { _ = world.take(.source(.linkLost), by: behaviour) }
        while let operation = world.sourceOperations.first {
            let outcome: Outcome = operation == .redial || operation == .connect ? .failure : .success
            _ = world.take(.source(.ended(operation, outcome)), by: behaviour)
        }
        return world.runsOnSource && (world.source.state == .failed || world.source.state == .cancelled)
    }

    fileprivate var machinesKnow: Bool {
        if isSourceAlive {
            if source.isTakeBackPossible == runIsOut { return false }
            if source.isWorkloadHere && !runsOnSource { return false }
            if source.state == .failed || source.state == .postcopyPaused, source.failureReason == nil { return false }
        }
        return !isDestinationAlive || destination.isCommitted == runsOnDestination
    }

    /// Nothing happens any more unless something breaks or somebody wants something else.
    var isQuiet: Bool { steps().allSatisfy(\.isFault) }

    /// The ends that a world may come to rest in: the workload runs where its newest state is, or it is one of the
    /// windows that are known and named.
    fileprivate var isAllowedEnd: Bool {
        // A `cont` may wait for a source to come, and for nothing else; a `cancel` for nothing.
        if contWaits && destination.state != .setup { return false }
        if cancelWaits { return false }
        return newestOnDestination ? isAllowedEndOnDestination : isAllowedEndOnSource
    }

    private var isAllowedEndOnDestination: Bool {
        let sourceIsRight: Bool
        if !isSourceAlive {
            sourceIsRight = true
        } else if source.state == .completed {
            sourceIsRight = heardRunning
        } else if isDestinationAlive {
            sourceIsRight = source.state == .postcopyPaused && relinksLeft == 0
        } else {
            // The operator's word has made the pause a failure.
            sourceIsRight = source.state == (setting.operatorSpeaks ? .failed : .postcopyPaused)
        }
        // A destination that dies after its commit point leaves nobody running.
        let destinationIsRight =
            !isDestinationAlive
            || runsOnDestination && destination.state == (allPagesResident ? .completed : .postcopyPaused)
        return sourceIsRight && destinationIsRight
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

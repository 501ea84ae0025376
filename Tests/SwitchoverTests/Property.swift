import Identity
import Switchover

/// A property that must hold in every reachable world.
enum Property: String, CaseIterable {
    case neverBothRun = "both sides run"
    case newestStateRuns = "the source runs although the destination has run"
    case devicesBeforeRun = "the destination runs before its devices have loaded and the source knows it"
    case takeBack = "no RUN is pending, and the source cannot take the workload back by itself"
    case promiseHolds = "the source holds a promise for its last RUN, and the destination runs"
    case leaseNamesRunner = "the destination runs, and the lease names the source"
    case locksAreFreeBeforeRun = "RUN is sent while the source holds the disk locks"
    case undoneBeforePromise = "a promise is sent while hooks and disk locks are held"
    case runningIsTrue = "the source has received RUNNING, and the destination has not started"
    case everyMessageIsExpected = "a side treats its peer's message as a violation of the protocol"
    case contTellsTheTruth = "an answer to cont is not the real result"
    case cancelTellsTheTruth = "an answer to cancel is not the real result"
    case completedIsComplete = "the source has completed, and pages are missing or nothing has started"
    case linksAreTold = "an event of an earlier link is taken for one of the present link"
    case isRemembered = "a source reconnects after its workload has arrived, and the destination does not know it"
    case endIsPolite = "an agent that was told to exit leaves a question open that only it could answer"
    case leaseComesHome = "the workload stays at the source, and the source can never own the lease again"
    case machinesKnow = "a machine is wrong about which side runs or may run"
    case noDeadEnd = "no step is left, and the workload does not run where its newest state is"

    /// The property's index among all properties.
    var number: UInt64 { UInt64(Property.allCases.firstIndex(of: self) ?? 0) }

    /// Whether the property holds in `world`; if `isQuiet`, only faults are left as steps of `world`.
    func holds(in world: World, _ isQuiet: Bool, by behaviour: Behaviour) -> Bool {
        switch self {
        case .neverBothRun: world.runners <= 1
        case .newestStateRuns: world.runners == 0 || world.runsWhereItShould
        case .devicesBeforeRun: !world.runsOnDestination || world.devicesLoaded && world.heardPong
        // A process that has hung up cannot be told to resume.
        case .takeBack where world.hasHungUp: true
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

    /// Whether a source that runs the workload for good can move it again.
    fileprivate var leaseComesHome: Bool {
        guard setting.usesLease, runsOnSource, !hasHungUp, isSourceAlive,
            source.state == .failed || source.state == .cancelled
        else { return true }
        return mayMoveOn(from: .source)
    }

    /// Whether the source resumes the workload if the destination dies and every operation of the source succeeds.
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
            case .resync, .proceed, .prepare, .stop, .save, .releaseLocks, .resume:
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
        // After the workload has moved on or ended, the machine still reports that it has arrived.
        return !isDestinationAlive || hasDied || third != .none || destination.isCommitted == runsOnDestination
    }

    /// Whether a world may come to rest as it is.
    ///
    /// The workload runs where its newest state is, or the world is one of the known windows that have names below.
    fileprivate var isAllowedEnd: Bool {
        // A `cont` may wait for a source to connect, or for a start that hangs. A `cancel` may not wait.
        if contWaits && destination.state != .setup && !isHanging { return false }
        if cancelWaits { return false }
        if isHanging { return true }
        return switch newest {
        case .source: isAllowedEndOnSource
        case .destination: isAllowedEndOnDestination
        case .third: isAllowedEndOnThird
        }
    }

    /// Whether an operation hangs that may take for ever.
    private var isHanging: Bool {
        setting.hangs
            && (sourceOperations.contains { [.prepare, .stop, .save, .releaseLocks, .resume].contains($0) }
                || destinationOperations.contains { [.acquire, .start, .undo].contains($0) })
    }

    private var isAllowedEndOnDestination: Bool {
        // If the destination dies after its commit point, or the workload ends, no side runs the workload.
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

    /// Whether the source knows, as far as it can, that the workload has left it.
    private var sourceKnowsItHasGone: Bool {
        guard isSourceAlive else { return true }
        if source.state == .completed { return heardRunning || !setting.tellsStart }
        if isDestinationAlive && !hasDied { return source.state == .postcopyPaused && relinksLeft == 0 }
        // The operator's command has turned the pause into a failure.
        return source.state == (setting.operatorSpeaks ? .failed : .postcopyPaused)
    }

    private var isAllowedEndOnSource: Bool {
        // The newest state died with the source, so the destination must not run.
        guard isSourceAlive else { return !runsOnDestination }
        if runsOnSource { return (source.state == .failed || source.state == .cancelled) && isStoppedRightly }
        return isHeldBack || isUndecided || isWaitingForOperator
    }

    /// Whether the destination knows, as far as it can, that the source runs the workload.
    private var isStoppedRightly: Bool {
        guard isDestinationAlive else { return true }
        // A start that waits for `cont` is then refused by the lease.
        if setting.usesLease, destination.awaitsCont { return gaveUpRedial || relinksLeft == 0 }
        switch destination.state {
        case .failed, .cancelled, .setup: return true
        case .postcopyDevice:
            return destination.mayLeave || destination.failureReason != nil && (gaveUpRedial || relinksLeft == 0)
        case .none, .active, .preSwitchover, .device, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup,
            .postcopyRecover, .completed, .cancelling:
            return false
        }
    }

    /// Whether the source could not take its own disk locks, and the operator has no tries left.
    private var isHeldBack: Bool {
        resumeFailed && (source.state == .failed || source.state == .cancelled) && retriesLeft == 0
    }

    /// Whether the link broke while RUN was pending and no further link can be made, so that the source stays stopped.
    var isUndecided: Bool {
        guard runIsOut, !heardRunning, source.state == .postcopyPaused else { return false }
        return isDestinationAlive
            ? relinksLeft == 0 && destination.state == .postcopyDevice : !setting.operatorSpeaks && !setting.usesLease
    }

    /// Whether only another `cont` can continue the migration.
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
        case .resync, .proceed, .prepare, .stop, .save, .releaseLocks, .resume, .seizeLease, .seizeDecided,
            .regainLease,
            .regainWrites, .regainDecided:
            false
        }
    }
}

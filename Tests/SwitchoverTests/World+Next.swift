import Identity
import Switchover

/// The next steps of a world.
extension World {
    typealias Steps = [(step: Step, isFault: Bool)]

    /// Every step that can be taken.
    ///
    /// A step with `isFault` need not happen: the world may also come to rest without it.
    func steps() -> Steps {
        var steps: Steps = []
        if isSourceAlive { addSourceSteps(&steps) }
        if isDestinationAlive { addDestinationSteps(&steps) }
        addThirdSteps(&steps)
        for stray in strays.distinct { steps.append((.strayLands(stray), true)) }
        return steps
    }

    private func addSourceSteps(_ steps: inout Steps) {
        // What happens while a workload is prepared is walked for attached processes, which take long for it. The
        // machine does not tell workloads apart, and the walk of every setting would take twice as long.
        if !setting.attaches, sourceOperations.contains(.prepare) {
            return steps.append((.source(.ended(.prepare, .success)), false))
        }
        addOperatorSteps(&steps)
        for operation in sourceOperations.distinct { addEnds(of: operation, &steps) }
        if let message = toSource.first, sourceLink == .up { steps.append((.source(.received(message)), false)) }
        if sourceLink == .up {
            let mustNotice = toSource.isEmpty && (!isJoined && dialed == nil || !isDestinationAlive)
            steps.append((.source(.linkLost), !mustNotice))
            // If the destination has every page, that is known before the comparison ends.
            let isCompared = source.link.map { sourceOperations.contains(.resync($0)) } ?? false
            if isJoined || isCompared, !allPagesSent,
                source.state == .postcopyDevice || source.state == .postcopyActive || isCompared
            {
                steps.append((.source(.allPagesSent), false))
            }
        }
        if driver.answersOverdueCancel, cancelWaits, setting.hangs { steps.append((.source(.cancelOverdue), false)) }
        if setting.attaches, !hasHungUp { steps.append((.processHangsUp, true)) }
        steps.append((.sourceDies, true))
    }

    private func addOperatorSteps(_ steps: inout Steps) {
        // The operator's commands are then for the migration to the third host.
        guard !sourceMovedOn else { return }
        if source.state == .none { steps.append((.source(.migrate), false)) }
        if mayStart, source.state == .setup || source.state == .active {
            steps.append((.source(.startPostcopy), false))
        }
        if source.state == .preSwitchover { steps.append((.source(.migrateContinue), false)) }
        if resumeFailed, retriesLeft > 0, !sourceOperations.contains(.resume) {
            steps.append((.source(.retryResume), false))
        }
        // A cancel is possible but not necessary.
        if cancelsLeft > 0, source.state != .none, !cancelWaits { steps.append((.source(.cancel), true)) }
        if endsLeft > 0, source.isOver, third == .none { steps.append((.source(.ends), true)) }
        if driver.asksLeaseAgain, source.awaitsLease, source.state == .postcopyPaused,
            !sourceOperations.contains(where: \.isDeciding)
        {
            steps.append((.source(.leaseDue), false))
        }
        guard source.state == .postcopyPaused, !sourceOperations.contains(where: \.isDeciding) else { return }
        if relinksLeft > 0, isDestinationAlive { steps.append((.source(.recover), false)) }
        let isGone =
            !isDestinationAlive || hasDied || destination.state == .failed || destination.state == .cancelled
        // Only the operator asks a lease again that names a destination which is gone.
        if setting.usesLease, isGone, newest == .source, !source.awaitsLease {
            steps.append((.source(.cancel), false))
        }
        if setting.operatorSpeaks, isGone, newest != .source || !setting.usesLease {
            steps.append((.source(.destinationIsGone(hasRun: newest != .source)), false))
        }
    }

    private func addEnds(of operation: SourceOperation, _ steps: inout Steps) {
        func add(_ outcome: Outcome, isFault: Bool = false) {
            steps.append((.source(.ended(operation, outcome)), isFault))
        }
        switch operation {
        case .connect(let link), .redial(let link):
            // A connection for an earlier link is closed when it is made.
            guard link == source.link else { return add(.success) }
            let isHopeless = !isDestinationAlive || source.hasLinkedBefore && relinksLeft == 0
            if !isHopeless { add(.success) }
            // Failed attempts are bounded, as links are.
            if isHopeless || link.value <= setting.relinks + 1 { add(.failure, isFault: !isHopeless) }
        case .proceed, .resync: add(.success)
        case _ where hasHungUp && operation.asksWorkload:
            add(.failure)
            if operation == .releaseLocks, !driver.noticesHangUp { add(.success) }
        case .prepare, .stop, .save, .releaseLocks:
            add(.success, isFault: setting.hangs)
            add(.failure, isFault: true)
        case .resume:
            add(.success, isFault: setting.hangs)
            // A workload that could not be stopped still runs and holds its devices, so that its resume cannot fail.
            if !runsOnSource { add(.failure, isFault: true) }
        case .seizeLease:
            steps.append((.source(.storeDecides(operation)), false))
            add(.unreachable, isFault: true)
            if silencesLeft > 0 { add(.silent, isFault: true) }
        case .seizeDecided(let isWon): add(isWon ? .success : .failure)
        case .regainLease, .regainWrites: steps.append((.source(.storeDecides(operation)), false))
        case .regainDecided(let isDone): add(isDone ? .success : .failure)
        }
    }

    private func addDestinationSteps(_ steps: inout Steps) {
        // After the workload has moved on, `cont` is for the host that has it now.
        let hasMovedOn = destination.state == .completed && !runsOnDestination
        if contsLeft > 0, !hasMovedOn { steps.append((.destination(.cont), false)) }
        for operation in destinationOperations.distinct { addEnds(of: operation, &steps) }
        if destination.awaitsBye, destinationLink != .up, !destinationOperations.contains(where: \.isOfLease) {
            steps.append((.destination(.sourceGivenUp), false))
        }
        if dialed?.isEmpty == false { steps.append((.destination(.accepted), false)) }
        if let message = toDestination.first, destinationLink == .up {
            steps.append((.destination(.received(message)), false))
        }
        if destinationLink == .up {
            let mustNotice = toDestination.isEmpty && (!isJoined || !isSourceAlive)
            steps.append((.destination(.linkLost), !mustNotice))
        }
        if allPagesSent, !allPagesResident, destination.state != .failed, destination.state != .cancelled {
            // Pages have lanes of their own, so that they may arrive before or after any message on this link.
            steps.append((.destination(.allPagesResident), !isJoined))
        }
        addLeavingSteps(&steps)
        steps.append((.destinationDies, true))
    }

    private func addEnds(of operation: DestinationOperation, _ steps: inout Steps) {
        func add(_ outcome: Outcome, isFault: Bool = false) {
            steps.append((.destination(.ended(operation, outcome)), isFault))
        }
        switch operation {
        case .proceed: add(.success)
        case .undo:
            add(.success, isFault: setting.hangs)
            if setting.hangs { add(.failure, isFault: true) }
        case .prepareMemory, .loadDevices:
            add(.success)
            add(.failure, isFault: true)
        case .acquire, .start:
            add(.success, isFault: setting.hangs)
            add(.failure, isFault: true)
            if operation == .start, setting.diesStarting { add(.dead, isFault: true) }
        case .commitLease:
            steps.append((.destination(.storeDecides(operation)), false))
            add(.unreachable, isFault: true)
        case .commitDecided(let isWon): add(isWon ? .success : .failure)
        case .returnLease: steps.append((.destination(.storeDecides(operation)), false))
        case .returnDecided: add(.success)
        }
    }

    private func addLeavingSteps(_ steps: inout Steps) {
        if endsLeft > 0, !destinationLeaves { steps.append((.destination(.leaves), true)) }
        if endsLeft > 0, mayCancelAtDestination { steps.append((.destination(.migrateCancel), true)) }
        if destinationLeaves, let wait = destination.exitWait {
            steps.append((.destination(.exitOverdue(wait)), true))
        }
        if destinationLeaves, destination.exitWait == nil || !driver.endsAfterBye, third == .none {
            steps.append((.destination(.ends), false))
        }
        if setting.operatorSpeaks, destination.state == .postcopyPaused, !isSourceAlive || setting.operatorErrs {
            steps.append((.destination(.sourceIsGone), true))
        }
        // With the shipped rule, this step would change nothing, since the session stays until its store has answered.
        if !driver.staysForStore, destination.hasGivenUp, thirdsLeft > 0 {
            steps.append((.destination(.makesWay), true))
        }
    }

    /// Whether the operator may cancel at the destination; a source that is alive would be told to cancel instead.
    private var mayCancelAtDestination: Bool {
        switch destination.state {
        case .setup, .active, .postcopyDevice: !destination.hasGivenUp
        case .none, .preSwitchover, .device, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup, .postcopyRecover,
            .completed,
            .cancelling, .cancelled, .failed:
            false
        }
    }

    private func addThirdSteps(_ steps: inout Steps) {
        func add(_ event: ThirdEvent, isFault: Bool = false) { steps.append((.third(event), isFault)) }
        switch third {
        case .none:
            guard thirdsLeft > 0 else { return }
            for side in [Side.source, .destination] where mayMoveOn(from: side) {
                add(.moves(from: side), isFault: true)
            }
            guard setting.usesLease else { return }
            if ownerIsDead, store.newest?.isReleased == false { add(.takesOver, isFault: true) }
            if store.newest?.isReleased ?? true { add(.begins, isFault: true) }
        case .granted(let side, _):
            let canCommit = !setting.usesLease || thirdFollows
            if canCommit { add(.commits) }
            add(.refuses, isFault: canCommit && isAlive(side))
        case .runs: break
        }
    }
}

extension SourceMachine {
    /// Whether a link was made before the present one.
    fileprivate var hasLinkedBefore: Bool { state != .setup }
}

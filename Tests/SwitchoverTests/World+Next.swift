import Switchover

/// What can happen next.
extension World {
    typealias Steps = [(step: Step, isFault: Bool)]

    /// Every step that can be taken.
    ///
    /// `isFault` says that nothing makes it happen: the world may also stay without it.
    func steps() -> Steps {
        var steps: Steps = []
        if isSourceAlive { addSourceSteps(&steps) }
        if isDestinationAlive { addDestinationSteps(&steps) }
        addThirdSteps(&steps)
        for stray in strays.distinct { steps.append((.strayLands(stray), true)) }
        return steps
    }

    private func addSourceSteps(_ steps: inout Steps) {
        addOperatorSteps(&steps)
        for operation in sourceOperations.distinct { addEnds(of: operation, &steps) }
        if let message = toSource.first, sourceLink == .up { steps.append((.source(.received(message)), false)) }
        if sourceLink == .up {
            let mustNotice = toSource.isEmpty && (!isJoined && dialed == nil || !isDestinationAlive)
            steps.append((.source(.linkLost), !mustNotice))
            if isJoined, !allPagesSent, source.state == .postcopyDevice || source.state == .postcopyActive {
                steps.append((.source(.allPagesSent), false))
            }
        }
        if driver.answersOverdueCancel, cancelWaits, setting.hangs { steps.append((.source(.cancelOverdue), false)) }
        steps.append((.sourceDies, true))
    }

    private func addOperatorSteps(_ steps: inout Steps) {
        // What the operator says then is for the migration to the third host.
        guard !sourceMovedOn else { return }
        if source.state == .none { steps.append((.source(.migrate), false)) }
        if mayStart, source.state == .setup || source.state == .active {
            steps.append((.source(.startPostcopy), false))
        }
        if resumeFailed, retriesLeft > 0, !sourceOperations.contains(.resume) {
            steps.append((.source(.retryResume), false))
        }
        // Nobody has to cancel, but somebody who waits may.
        if cancelsLeft > 0, source.state != .none, !cancelWaits { steps.append((.source(.cancel), true)) }
        if endsLeft > 0, source.isOver, third == .none { steps.append((.source(.ends), true)) }
        guard source.state == .postcopyPaused, !sourceOperations.contains(where: \.isDeciding) else { return }
        if relinksLeft > 0, isDestinationAlive { steps.append((.source(.recover), false)) }
        let isGone =
            !isDestinationAlive || hasDied || destination.state == .failed || destination.state == .cancelled
        if setting.usesLease, isGone, newest == .source { steps.append((.source(.cancel), false)) }
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
            // A connection that is made when nobody wants it any more is closed.
            guard link == source.link else { return add(.success) }
            let isHopeless = !isDestinationAlive || source.hasLinkedBefore && relinksLeft == 0
            if !isHopeless { add(.success) }
            // Attempts that fail are bounded, as links are.
            if isHopeless || link.value <= setting.relinks + 1 { add(.failure, isFault: !isHopeless) }
        case .proceed, .resync: add(.success)
        case .stop, .save, .releaseLocks:
            add(.success, isFault: setting.hangs)
            add(.failure, isFault: true)
        case .resume:
            add(.success, isFault: setting.hangs)
            // One that could not be stopped runs on, and holds what it needs.
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
        // Of what has moved on, `cont` is for whoever has it now.
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
            // Pages come over lanes of their own, so that they may arrive before or after anything on this one.
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
        if destinationLeaves, destination.mayLeave || !driver.endsAfterBye, third == .none {
            steps.append((.destination(.ends), false))
        }
        // A rule that ships changes nothing: the session that makes way stays until its store has answered.
        if !driver.staysForStore, destination.hasGivenUp, thirdsLeft > 0 {
            steps.append((.destination(.makesWay), true))
        }
    }

    /// A source that is there is asked to cancel instead.
    private var mayCancelAtDestination: Bool {
        switch destination.state {
        case .setup, .active, .postcopyDevice: !destination.hasGivenUp
        case .none, .device, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup, .postcopyRecover, .completed,
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
    /// Whether the link that is being made is not the first.
    fileprivate var hasLinkedBefore: Bool { state != .setup }
}

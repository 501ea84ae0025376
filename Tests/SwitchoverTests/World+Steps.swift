import Identity
import Switchover

extension World {
    /// Takes one step and returns the actions of the machine concerned, for the trace.
    mutating func take(_ step: Step, by behaviour: Behaviour) -> [Any] {
        switch step {
        case .source(let event):
            guard prepare(event) else { return [] }
            let fresh = RunGrant(token: RunToken(UInt64(runsSent + 1)), epoch: sourceEpoch)
            let actions = behaviour.source(&source, told(event), fresh)
            actions.forEach { perform($0) }
            return actions
        case .destination(let event):
            if event == .accepted, hasDied { return refuseWhatHasDied() }
            guard prepare(event) else { return [] }
            let actions = behaviour.destination(&destination, told(event))
            if event == .accepted { accept(actions) } else { actions.forEach { perform($0) } }
            return actions
        case .third(let event):
            take(event)
            return []
        case .strayLands(let proposal):
            strays.remove(proposal)
            _ = store.accepts(proposal, checksOwner: driver.checksOwner)
            return []
        case .processHangsUp:
            hasHungUp = true
            runOnByItself()
            return []
        case .sourceDies:
            let outlives = setting.attaches
            if outlives { runOnByItself() }
            let runsOn = outlives && runsOnSource
            // Clear the state of a dead side, so that many worlds become one.
            strayWrites(of: sourceOperations)
            source = SourceMachine()
            sourceOperations = []
            toSource = []
            sourceLink = .lost
            isJoined = false
            isSourceAlive = false
            runsOnSource = runsOn
            sourceHoldsLocks = false
            cancelWaits = false
            return []
        case .destinationDies:
            strayWrites(of: destinationOperations)
            destination = DestinationMachine()
            destinationOperations = []
            toDestination = []
            dialed = nil
            destinationLink = .lost
            isJoined = false
            isDestinationAlive = false
            runsOnDestination = false
            destinationHoldsHooks = false
            contWaits = false
            return []
        }
    }

    /// The source's process and its agent have lost each other: the process resumes unless another host may run the
    /// workload.
    private mutating func runOnByItself() {
        if !hasDeparted, newest == .source { runsOnSource = true }
    }

    // MARK: Effects of an event before its machine receives it

    /// The event as the driver reports it to the machine.
    private func told(_ event: SourceEvent) -> SourceEvent {
        if !driver.reportsFailedRelease, event == .ended(.releaseLocks, .failure) {
            return .ended(.releaseLocks, .success)
        }
        return event
    }

    private func told(_ event: DestinationEvent) -> DestinationEvent {
        if !driver.reportsDeadStart, event == .ended(.start, .dead) { return .ended(.start, .success) }
        return event
    }

    /// Applies an event to the world.
    ///
    /// - Returns: whether the machine receives the event.
    private mutating func prepare(_ event: SourceEvent) -> Bool {
        switch event {
        case .migrate, .migrateContinue, .recover, .leaseDue: break
        case .startPostcopy: mayStart = false
        case .cancel:
            cancelsLeft = max(0, cancelsLeft - 1)
            cancelWaits = true
        case .cancelOverdue: break
        // The operator gives this command only if it is true.
        case .destinationIsGone(let hasRun): heardPromise = heardPromise || !hasRun
        case .retryResume: retriesLeft -= 1
        case .linkLost: loseSourceLink()
        case .allPagesSent: allPagesSent = true
        case .storeDecides(let operation):
            decide(operation)
            return false
        case .ended(let operation, let outcome): return prepareEnd(of: operation, outcome)
        case .received(let message):
            toSource.removeFirst()
            switch message {
            case .pong: heardPong = true
            case .running: heardRunning = true
            case .startFailed(let token, _), .cancelled(let token):
                promised.insert(token.value)
                heardPromise = heardPromise || token.value == UInt64(runsSent)
            case .ready, .refused, .welcome, .devicesFailed, .startRequest, .completeAck: break
            }
        case .ends:
            endsLeft -= 1
            release(by: .source, if: runsOnSource)
            _ = take(.sourceDies, by: .shipped)
            return false
        }
        return true
    }

    private mutating func prepareEnd(of operation: SourceOperation, _ outcome: Outcome) -> Bool {
        sourceOperations.remove(operation)
        if let link = operation.link, link != source.link {
            // The event is late and belongs to an earlier link.
            guard !driver.checksLinks else { return false }
            misdeeds.insert(.linksAreTold)
        }
        switch (operation, outcome) {
        case (.connect, .success), (.redial, .success):
            toSource = []
            sourceLink = .up
            if source.state == .setup {
                destinationLink = .up
                isJoined = true
            } else {
                relinksLeft -= 1
                isJoined = false
                dialed = []
            }
        case (.redial, _): gaveUpRedial = true
        case (.stop, .success): runsOnSource = false
        case (.releaseLocks, .success):
            sourceHoldsLocks = false
            // A process that has hung up does not hear it.
            hasDeparted = setting.attaches && !hasHungUp
        case (.resume, .success):
            runsOnSource = true
            sourceHoldsLocks = true
            resumeFailed = false
            hasDeparted = false
        case (.resume, _): resumeFailed = true
        case (.seizeLease(let grant), .silent):
            silencesLeft -= 1
            strays.insert(proposal(of: grant))
        case (.seizeDecided(true), _):
            heardPromise = true
            if let newest = store.newest, newest.owner == .source { sourceEpoch = newest.epoch }
        case (.regainDecided(true), _):
            if let newest = store.newest, newest.owner == .source { sourceEpoch = newest.epoch }
        case (.connect, _), (.resync, _), (.prepare, _), (.stop, _), (.releaseLocks, _), (.proceed, _), (.save, _),
            (.seizeLease, _), (.seizeDecided(false), _), (.regainDecided(false), _), (.regainLease, _),
            (.regainWrites, _):
            break
        }
        return true
    }

    private mutating func prepare(_ event: DestinationEvent) -> Bool {
        switch event {
        case .cont:
            contsLeft -= 1
            contWaits = true
        case .linkLost: loseDestinationLink()
        case .allPagesResident: allPagesResident = true
        case .accepted: break
        case .sourceGivenUp: gaveSourceUp = true
        case .storeDecides(let operation):
            decide(operation)
            return false
        case .ended(let operation, let outcome): return prepareEnd(of: operation, outcome)
        case .received: toDestination.removeFirst()
        case .leaves:
            endsLeft -= 1
            destinationLeaves = true
        case .exitOverdue: gaveSourceUp = true
        case .migrateCancel:
            endsLeft -= 1
            gaveSourceUp = true
        case .sourceIsGone:
            runsOnDestination = false
            hasDied = true
        case .ends:
            noteEnd()
            release(by: .destination, if: runsOnDestination)
            _ = take(.destinationDies, by: .shipped)
            return false
        case .makesWay:
            strayWrites(of: destinationOperations)
            destinationOperations = []
            destination = DestinationMachine()
            return false
        }
        return true
    }

    private mutating func prepareEnd(of operation: DestinationOperation, _ outcome: Outcome) -> Bool {
        destinationOperations.remove(operation)
        switch (operation, outcome) {
        case (.loadDevices, .success): devicesLoaded = true
        case (.start, .failure), (.start, .unreachable), (.start, .silent):
            runsOnDestination = false
            newest = .source
            hasCome = false
        case (.start, .dead):
            runsOnDestination = false
            hasDied = true
        case (.undo, .success): destinationHoldsHooks = false
        case (.undo, _) where driver.repeatsUndo:
            destinationOperations.insert(.undo)
            return false
        case (.proceed, _), (.prepareMemory, _), (.loadDevices, _), (.acquire, _), (.start, .success),
            (.commitLease, _), (.commitDecided, _), (.undo, _), (.returnLease, _), (.returnDecided, _):
            break
        }
        return true
    }

    /// Notes a misdeed if an agent that was told to exit leaves a question open at the source.
    private mutating func noteEnd() {
        guard isSourceAlive, !gaveSourceUp else { return }
        let isUnknown = runIsOut && !heardRunning && !setting.usesLease
        if isUnknown || runsOnDestination && source.state != .completed { misdeeds.insert(.endIsPolite) }
    }

    /// Refuses a source that reconnects after its workload has ended.
    private mutating func refuseWhatHasDied() -> [Any] {
        dialed = nil
        isJoined = false
        guard let token = destination.startedToken else { return [] }
        let answers: [DestinationMessage] = [.welcome, .running(token), .refused(reason: "the workload has ended")]
        if sourceLink == .up { toSource += answers }
        return answers.map { DestinationAction.send($0) }
    }

    /// Accepts or refuses a link whose HELLO rejoins.
    private mutating func accept(_ actions: [DestinationAction]) {
        let sent = dialed ?? []
        dialed = nil
        if case .send(.refused)? = actions.last {
            // As long as this side lives, it must tell the source about a workload that has arrived.
            if hasCome { misdeeds.insert(.isRemembered) }
            if sourceLink == .up, let reason = actions.last { append(reason) }
            actions.dropLast().forEach { perform($0) }
            isJoined = false
            return
        }
        actions.dropLast().forEach { perform($0) }
        destinationLink = .up
        toDestination = Array(sent.dropFirst())
        isJoined = sourceLink == .up
        if let welcome = actions.last { perform(welcome) }
    }

    private mutating func append(_ action: DestinationAction) {
        if case .send(let message) = action { toSource.append(message) }
    }

    // MARK: Effects of an action

    private mutating func perform(_ action: SourceAction) {
        switch action {
        case .connect(let link): sourceOperations.insert(.connect(link))
        case .redial(let link): sourceOperations.insert(.redial(link))
        case .send(let message): send(message)
        case .proceed: sourceOperations.insert(.proceed)
        case .prepare: sourceOperations.insert(.prepare)
        case .stop: sourceOperations.insert(.stop)
        case .save: sourceOperations.insert(.save)
        case .releaseLocks: sourceOperations.insert(.releaseLocks)
        case .seizeLease(let grant): sourceOperations.insert(.seizeLease(grant))
        case .regainLease(let token): sourceOperations.insert(.regainLease(token))
        case .resume: sourceOperations.insert(.resume)
        case .resync:
            allPagesSent = false
            if let link = source.link { sourceOperations.insert(.resync(link)) }
        case .cancelSucceeded:
            if !runsOnSource { misdeeds.insert(.cancelTellsTheTruth) }
            cancelWaits = false
        case .cancelFailed:
            // The answer names a process that has hung up, which may run on by itself.
            if runsOnSource, !hasHungUp { misdeeds.insert(.cancelTellsTheTruth) }
            cancelWaits = false
        case .cancelUnknown: cancelWaits = false
        case .closeLink: loseSourceLink()
        case .violation:
            misdeeds.insert(.everyMessageIsExpected)
            loseSourceLink()
        }
    }

    private mutating func perform(_ action: DestinationAction) {
        switch action {
        case .send(let message): send(message)
        case .proceed: destinationOperations.insert(.proceed)
        case .prepareMemory: destinationOperations.insert(.prepareMemory)
        case .discardMemory, .serveFaults: break
        case .loadDevices: destinationOperations.insert(.loadDevices)
        case .acquire:
            destinationHoldsHooks = true
            destinationOperations.insert(.acquire)
        case .commitLease(let grant): destinationOperations.insert(.commitLease(grant))
        case .start:
            runsOnDestination = true
            newest = .destination
            hasCome = true
            destinationOperations.insert(.start)
        case .undo: destinationOperations.insert(.undo)
        case .returnLease(let grant): destinationOperations.insert(.returnLease(grant))
        case .contSucceeded:
            if !runsOnDestination || destinationOperations.contains(.start) { misdeeds.insert(.contTellsTheTruth) }
            contWaits = false
        case .contFailed:
            if runsOnDestination { misdeeds.insert(.contTellsTheTruth) }
            contWaits = false
        case .closeLink: loseDestinationLink()
        case .violation:
            misdeeds.insert(.everyMessageIsExpected)
            loseDestinationLink()
        }
    }

    private mutating func send(_ message: SourceMessage) {
        if case .run(let grant) = message {
            // A repeated RUN has its old token.
            if grant.token.value > UInt64(runsSent) {
                runsSent += 1
                heardPromise = false
            }
            if sourceHoldsLocks { misdeeds.insert(.locksAreFreeBeforeRun) }
        }
        if sourceLink == .up {
            if dialed != nil { dialed?.append(message) } else if isJoined { toDestination.append(message) }
        }
        // No message follows BYE, and earlier messages still arrive.
        if message == .bye { loseSourceLink() }
    }

    private mutating func send(_ message: DestinationMessage) {
        if case .startFailed = message, destinationHoldsHooks { misdeeds.insert(.undoneBeforePromise) }
        if case .cancelled = message, destinationHoldsHooks { misdeeds.insert(.undoneBeforePromise) }
        if destinationLink == .up, isJoined { toSource.append(message) }
    }

    private mutating func loseSourceLink() {
        sourceLink = .lost
        toSource = []
        if dialed == nil { isJoined = false }
    }

    private mutating func loseDestinationLink() {
        destinationLink = .lost
        toDestination = []
        if dialed == nil { isJoined = false }
    }
}

import Switchover

extension World {
    /// Takes one step and returns what the machine concerned wanted done, for people.
    mutating func take(_ step: Step, by behaviour: Behaviour) -> [Any] {
        switch step {
        case .source(let event):
            prepare(event)
            let fresh = RunGrant(token: RunToken(UInt64(runsSent + 1)), epoch: sourceEpoch)
            let actions = behaviour.source(&source, event, fresh)
            actions.forEach { perform($0) }
            return actions
        case .destination(let event):
            prepare(event)
            let actions = behaviour.destination(&destination, event)
            if event == .accepted { accept(actions) } else { actions.forEach { perform($0) } }
            return actions
        case .sourceDies:
            // A dead side keeps nothing; that many worlds become one.
            source = SourceMachine()
            sourceOperations = []
            toSource = []
            sourceLink = .lost
            isJoined = false
            isSourceAlive = false
            runsOnSource = false
            sourceHoldsLocks = false
            cancelWaits = false
            return []
        case .destinationDies:
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

    // MARK: What an event does before its machine hears of it

    private mutating func prepare(_ event: SourceEvent) {
        switch event {
        case .migrate, .recover: break
        case .startPostcopy: mayStart = false
        case .cancel:
            cancelsLeft = max(0, cancelsLeft - 1)
            cancelWaits = true
        // It is said only when it is true.
        case .destinationIsGone(let hasRun): heardPromise = heardPromise || !hasRun
        case .retryResume: retriesLeft -= 1
        case .linkLost: loseSourceLink()
        case .allPagesSent: allPagesSent = true
        case .storeDecides: decideForSource()
        case .ended(let operation, let outcome): prepareEnd(of: operation, outcome)
        case .received(let message):
            toSource.removeFirst()
            switch message {
            case .pong: heardPong = true
            case .running: heardRunning = true
            case .startFailed(let token, _), .cancelled(let token):
                heardPromise = heardPromise || token.value == UInt64(runsSent)
            case .ready, .refused, .welcome, .devicesFailed, .startRequest, .completeAck: break
            }
        }
    }

    private mutating func prepareEnd(of operation: SourceOperation, _ outcome: Outcome) {
        sourceOperations.remove(operation)
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
        case (.releaseLocks, .success): sourceHoldsLocks = false
        case (.resume, .success):
            runsOnSource = true
            sourceHoldsLocks = true
            resumeFailed = false
        case (.resume, _): resumeFailed = true
        case (.seizeDecided(true), _):
            heardPromise = true
            sourceEpoch = lease.epoch
        case (.regainLease, _):
            if lease.owner != .source { lease = Lease(epoch: lease.epoch + 1, owner: .source) }
            sourceEpoch = lease.epoch
        case (.resync, _): allPagesSent = false
        case (.connect, _), (.stop, _), (.releaseLocks, _), (.proceed, _), (.save, _),
            (.seizeLease, _), (.seizeDecided(false), _):
            break
        }
    }

    private mutating func decideForSource() {
        for case .seizeLease(let grant) in sourceOperations {
            sourceOperations.remove(.seizeLease(grant))
            if lease.epoch == grant.epoch { lease = Lease(epoch: grant.epoch + 1, owner: .source) }
            sourceOperations.insert(.seizeDecided(lease.owner == .source))
        }
    }

    private mutating func decideForDestination() {
        for case .commitLease(let grant) in destinationOperations {
            destinationOperations.remove(.commitLease(grant))
            let isWon = lease.epoch == grant.epoch
            if isWon { lease = Lease(epoch: grant.epoch + 1, owner: .destination) }
            destinationOperations.insert(.commitDecided(isWon))
        }
    }

    private mutating func prepare(_ event: DestinationEvent) {
        switch event {
        case .cont:
            contsLeft -= 1
            contWaits = true
        case .linkLost: loseDestinationLink()
        case .allPagesResident: allPagesResident = true
        case .accepted, .sourceGivenUp: break
        case .storeDecides: decideForDestination()
        case .ended(let operation, let outcome):
            destinationOperations.remove(operation)
            switch (operation, outcome) {
            case (.loadDevices, .success): devicesLoaded = true
            case (.start, .failure), (.start, .unreachable):
                runsOnDestination = false
                newestOnDestination = false
            case (.undo, _): destinationHoldsHooks = false
            case (.returnLease(let grant), _):
                if lease.epoch == grant.epoch + 1 { lease = Lease(epoch: grant.epoch + 2, owner: .source) }
            case (.proceed, _), (.prepareMemory, _), (.loadDevices, _), (.acquire, _), (.start, .success),
                (.commitLease, _), (.commitDecided, _):
                break
            }
        case .received: toDestination.removeFirst()
        }
    }

    /// What follows a HELLO that rejoins: the new link takes the old one's place, or is refused.
    private mutating func accept(_ actions: [DestinationAction]) {
        let sent = dialed ?? []
        dialed = nil
        if case .send(.refused)? = actions.last {
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

    // MARK: What an action does

    private mutating func perform(_ action: SourceAction) {
        switch action {
        case .connect: sourceOperations.insert(.connect)
        case .redial: sourceOperations.insert(.redial)
        case .send(let message): send(message)
        case .proceed: sourceOperations.insert(.proceed)
        case .stop: sourceOperations.insert(.stop)
        case .save: sourceOperations.insert(.save)
        case .releaseLocks: sourceOperations.insert(.releaseLocks)
        case .seizeLease(let grant): sourceOperations.insert(.seizeLease(grant))
        case .regainLease: sourceOperations.insert(.regainLease)
        case .resume: sourceOperations.insert(.resume)
        case .resync: sourceOperations.insert(.resync)
        case .cancelSucceeded:
            if !runsOnSource { misdeeds.insert(.cancelTellsTheTruth) }
            cancelWaits = false
        case .cancelFailed:
            if runsOnSource { misdeeds.insert(.cancelTellsTheTruth) }
            cancelWaits = false
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
            newestOnDestination = true
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
            // A repeated one carries the token that it had.
            if grant.token.value > UInt64(runsSent) {
                runsSent += 1
                heardPromise = false
            }
            if sourceHoldsLocks { misdeeds.insert(.locksAreFreeBeforeRun) }
        }
        if sourceLink == .up {
            if dialed != nil { dialed?.append(message) } else if isJoined { toDestination.append(message) }
        }
        // Nothing follows it, and what was sent before still arrives.
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

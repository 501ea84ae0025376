import Switchover

extension World {
    /// Takes one step and returns what the machine concerned wanted done, for people.
    mutating func take(_ step: Step, by behaviour: Behaviour) -> [Any] {
        switch step {
        case .source(let event):
            prepare(event)
            let token = RunToken(UInt64(runsSent + 1))
            let actions = behaviour.source(&source, event, RunGrant(token: token, epoch: 0))
            actions.forEach { perform($0) }
            return actions
        case .destination(let event):
            prepare(event)
            let actions = behaviour.destination(&destination, event)
            actions.forEach { perform($0) }
            return actions
        case .sourceDies:
            // A dead side keeps nothing; that many worlds become one.
            source = SourceMachine()
            sourceOperations = []
            toSource = []
            sourceLink = .lost
            isSourceAlive = false
            runsOnSource = false
            sourceHoldsLocks = false
            return []
        case .destinationDies:
            destination = DestinationMachine()
            destinationOperations = []
            toDestination = []
            destinationLink = .lost
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
        case .migrate: break
        case .startPostcopy: mayStart = false
        case .retryResume: retriesLeft -= 1
        case .linkLost: loseSourceLink()
        case .allPagesSent: allPagesSent = true
        case .ended(let operation, let succeeded):
            sourceOperations.remove(operation)
            switch (operation, succeeded) {
            case (.connect, true):
                sourceLink = .up
                destinationLink = .up
            case (.stop, true): runsOnSource = false
            case (.releaseLocks, true): sourceHoldsLocks = false
            case (.resume, true):
                runsOnSource = true
                sourceHoldsLocks = true
                resumeFailed = false
            case (.resume, false): resumeFailed = true
            case (.connect, false), (.stop, false), (.releaseLocks, false), (.proceed, _), (.save, _): break
            }
        case .received(let message):
            toSource.removeFirst()
            switch message {
            case .pong: heardPong = true
            case .running: heardRunning = true
            case .startFailed(let token, _): heardPromise = token.value == UInt64(runsSent)
            case .ready, .refused, .devicesFailed, .startRequest, .completeAck: break
            }
        }
    }

    private mutating func prepare(_ event: DestinationEvent) {
        switch event {
        case .cont:
            contsLeft -= 1
            contWaits = true
        case .linkLost: loseDestinationLink()
        case .allPagesResident: allPagesResident = true
        case .ended(let operation, let succeeded):
            destinationOperations.remove(operation)
            switch (operation, succeeded) {
            case (.loadDevices, true): devicesLoaded = true
            case (.start, false):
                runsOnDestination = false
                newestOnDestination = false
            case (.undo, _): destinationHoldsHooks = false
            case (.proceed, _), (.prepareMemory, _), (.loadDevices, false), (.acquire, _), (.start, true): break
            }
        case .received: toDestination.removeFirst()
        }
    }

    // MARK: What an action does

    private mutating func perform(_ action: SourceAction) {
        switch action {
        case .connect: sourceOperations.insert(.connect)
        case .send(let message): send(message)
        case .proceed: sourceOperations.insert(.proceed)
        case .stop: sourceOperations.insert(.stop)
        case .save: sourceOperations.insert(.save)
        case .releaseLocks: sourceOperations.insert(.releaseLocks)
        case .resume: sourceOperations.insert(.resume)
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
        case .start:
            runsOnDestination = true
            newestOnDestination = true
            destinationOperations.insert(.start)
        case .undo: destinationOperations.insert(.undo)
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
        if case .run = message {
            runsSent += 1
            heardPromise = false
            if sourceHoldsLocks { misdeeds.insert(.locksAreFreeBeforeRun) }
        }
        if sourceLink == .up, destinationLink == .up { toDestination.append(message) }
    }

    private mutating func send(_ message: DestinationMessage) {
        if case .startFailed = message, destinationHoldsHooks { misdeeds.insert(.undoneBeforePromise) }
        if destinationLink == .up, sourceLink == .up { toSource.append(message) }
    }

    private mutating func loseSourceLink() {
        sourceLink = .lost
        toSource = []
    }

    private mutating func loseDestinationLink() {
        destinationLink = .lost
        toDestination = []
    }
}

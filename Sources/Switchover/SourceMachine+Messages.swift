/// What the destination says.
extension SourceMachine {
    /// READY, from the instance that HELLO named.
    ///
    /// `tellsStart` says whether it has the capability START_RESULT.
    public mutating func ready(from instance: InstanceID, tellsStart: Bool = true) -> [SourceAction] {
        guard isLinked else { return [] }
        guard case .setup(let startAsked) = current else { return violation("READY after the setup") }
        guard tellsStart || !usesLease else {
            current = .ended(.refused(reason: "it cannot say whether a start worked, which a run lease needs"))
            return endLink("a run lease needs the capability START_RESULT")
        }
        peer = instance
        peerTellsStart = tellsStart
        current = .active(startAsked: startAsked)
        return startAsked ? [.proceed] : []
    }

    /// REFUSED: the destination does not take the migration, or does not know it any more.
    public mutating func refused(reason: String) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .setup:
            current = .ended(.refused(reason: reason))
            return endLink("refused")
        case .redialing, .recovering, .granted, .cancelling, .running:
            // Also of a source that was welcomed, if what it comes for has ended.
            return endLinkAndLose(.refused(reason: reason))
        case .takingBack, .held, .ended:
            // Nobody is left there who waits for a word.
            owedWord = nil
            return endLink("refused")
        case .none, .active, .stopping, .saving, .awaitingPong, .releasing, .refused, .renewing, .seizing, .paused,
            .abandoned, .completed:
            return violation("REFUSED after the setup")
        }
    }

    /// HELLO, from the instance that it names, in answer to one that rejoins.
    public mutating func welcomed(by instance: InstanceID) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .redialing(let grant, let standing, let failure):
            guard instance == peer else { return endLinkAndLose(.otherInstance) }
            current = .recovering(grant, standing, failure)
            pagesSent = false
            completeSent = false
            return [.resync]
        case .takingBack, .held, .ended:
            guard let owedWord, instance == peer else {
                self.owedWord = nil
                return endLink(SwitchoverFailure.otherInstance.description)
            }
            return [.send(.cancel(owedWord))]
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing,
            .cancelling, .running, .seizing, .paused, .recovering, .abandoned, .completed:
            return violation("HELLO twice")
        }
    }

    private mutating func endLinkAndLose(_ failure: SwitchoverFailure) -> [SourceAction] {
        [.closeLink(reason: failure.description)] + lose(failure)
    }

    /// PONG: all devices have loaded on the destination.
    public mutating func pong(_ number: UInt64, from instance: InstanceID) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .awaitingPong(number) where instance == peer:
            current = .releasing(nil)
            return [.releaseLocks]
        case .awaitingPong:
            return violation("PONG \(number) answers no PING of this switchover, or comes from another instance")
        case .none, .setup, .active, .stopping, .saving, .releasing, .granted, .refused, .renewing, .cancelling,
            .running, .seizing, .paused, .redialing, .recovering:
            return violation("PONG without a PING")
        case .takingBack, .held, .ended, .abandoned, .completed:
            return []
        }
    }

    /// DEVICES_FAILED: a device did not load.
    public mutating func devicesFailed(device: String, reason: String) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .awaitingPong:
            return takeBack(.loadFailed(device: device, reason: reason), owesWord: false)
        case .none, .setup, .active, .stopping, .saving, .releasing, .granted, .refused, .renewing, .cancelling,
            .running, .seizing, .paused, .redialing, .recovering:
            return violation("DEVICES_FAILED where no device is being loaded")
        case .takingBack, .held, .ended:
            owedWord = nil
            return endLink("the destination has failed")
        case .abandoned, .completed:
            return []
        }
    }

    /// RUNNING: the destination has started the workload.
    public mutating func running(_ token: RunToken, from instance: InstanceID) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .granted(let grant) where grant.token == token && instance == peer:
            current = .running(grant)
            return []
        case .cancelling(let grant) where grant.token == token && instance == peer:
            current = .running(grant)
            return answerCancel("the workload has started on the destination")
        case .recovering(let grant, _, let failure) where grant.token == token && instance == peer:
            // The start that the link before had begun has ended meanwhile.
            current = .recovering(grant, .started, failure)
            return answerCancel("the workload has started on the destination")
        case .running(let grant) where grant.token == token && instance == peer:
            return []
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing,
            .cancelling, .running, .seizing, .paused, .redialing, .recovering, .takingBack, .held, .ended:
            return violation("RUNNING for a RUN that was not sent to this instance, or was refused")
        case .abandoned, .completed:
            return []
        }
    }

    /// START_FAILED: a promise, if it is the instance that sent PONG, that this token never starts.
    public mutating func startFailed(_ token: RunToken, reason: String, from instance: InstanceID) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .granted(let grant) where grant.token == token && instance == peer:
            switch refusalPolicy {
            case .takeBack: return takeBack(.startRefused(reason: reason))
            case .wait: current = .refused(token, reason: reason)
            }
            return []
        case .recovering(let grant, .unknown, _) where grant.token == token && instance == peer:
            if cancelWanted { return takeBack(.cancelled) }
            if refusalPolicy == .takeBack { return takeBack(.startRefused(reason: reason)) }
            current = .refused(token, reason: reason)
            return []
        case .cancelling(let grant) where grant.token == token && instance == peer:
            return takeBack(.cancelled)
        case .refused where instance == peer, .renewing where instance == peer,
            .granted where instance == peer, .cancelling where instance == peer:
            // A RUN that was repeated is answered twice; the second answer may come after the next RUN.
            return []
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing,
            .cancelling, .running, .seizing, .paused, .redialing, .recovering:
            return violation("START_FAILED for a RUN that is not outstanding at this instance")
        case .takingBack, .held, .ended, .abandoned, .completed:
            return []
        }
    }

    /// CANCELLED: a promise that this token never starts, and that nothing more is awaited.
    public mutating func cancelled(_ token: RunToken, from instance: InstanceID) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .cancelling(let grant) where grant.token == token && instance == peer,
            .recovering(let grant, .unknown, _) where grant.token == token && instance == peer:
            link = nil
            return takeBack(.cancelled, owesWord: false) + [.send(.bye)]
        case .takingBack, .held, .ended:
            guard token == owedWord, instance == peer else { return [] }
            owedWord = nil
            link = nil
            return [.send(.bye)]
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing,
            .cancelling, .running, .seizing, .paused, .redialing, .recovering:
            return violation("CANCELLED where no CANCEL is outstanding")
        case .abandoned, .completed:
            return []
        }
    }

    /// START_REQUEST: the destination's `cont` asks for another RUN.
    ///
    /// `grant` carries a token never used before.
    public mutating func startRequested(fresh grant: RunGrant) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .refused(let token, let reason):
            precondition(grant.token != token, "a RUN after START_FAILED needs a fresh token")
            if usesLease {
                current = .renewing(token, reason: reason)
                return regainLease(by: token)
            }
            current = .granted(grant)
            return [.send(.run(grant))]
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .renewing, .cancelling,
            .running, .seizing, .paused, .redialing, .recovering:
            return violation("START_REQUEST where no start has failed")
        case .takingBack, .held, .ended, .abandoned, .completed:
            return []
        }
    }

    /// COMPLETE_ACK: the destination runs and has every page.
    public mutating func completeAcknowledged() -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .running where completeSent:
            current = .completed
            link = nil
            return [.send(.bye)]
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing,
            .cancelling, .running, .seizing, .paused, .redialing, .recovering:
            return violation("COMPLETE_ACK before RUNNING or without a COMPLETE")
        case .takingBack, .held, .ended, .abandoned, .completed:
            return []
        }
    }
}

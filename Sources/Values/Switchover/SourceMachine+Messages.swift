package import Identity

/// The destination's messages.
extension SourceMachine {
    /// Handles READY from the instance that HELLO named.
    ///
    /// - Parameters:
    ///   - instance: the destination's process.
    ///   - tellsStart: whether the destination has the capability START_RESULT.
    package mutating func ready(from instance: InstanceID, tellsStart: Bool = true) -> [SourceAction] {
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

    /// Handles REFUSED: the destination does not accept the migration, or no longer knows it.
    package mutating func refused(reason: String) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .setup:
            current = .ended(.refused(reason: reason))
            return endLink("refused")
        case .redialing, .recovering, .granted, .cancelling, .running:
            // A destination that has answered a rejoining HELLO still sends REFUSED if the migration has ended there.
            return endLinkAndLose(.refused(reason: reason))
        case .takingBack, .held, .ended:
            // The destination no longer knows this migration, so nothing there waits for a message.
            owedWord = nil
            return endLink("refused")
        case .none, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing, .refused,
            .renewing,
            .seizing, .paused,
            .abandoned, .completed:
            return violation("REFUSED after the setup")
        }
    }

    /// Handles HELLO from another instance than the one that the operator named; the workload has not been stopped yet.
    package mutating func otherDestination(reason: String) -> [SourceAction] {
        guard isLinked else { return [] }
        guard case .setup = current else { return violation("HELLO after the setup") }
        current = .ended(.otherDestination(reason: reason))
        return endLink(reason)
    }

    /// Handles the HELLO of `instance` that answers a rejoining HELLO.
    package mutating func welcomed(by instance: InstanceID) -> [SourceAction] {
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
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing,
            .granted, .refused,
            .renewing,
            .cancelling, .running, .seizing, .paused, .recovering, .abandoned, .completed:
            return violation("HELLO twice")
        }
    }

    private mutating func endLinkAndLose(_ failure: SwitchoverFailure) -> [SourceAction] {
        [.closeLink(reason: failure.description)] + lose(failure)
    }

    /// Handles PONG: all devices have loaded on the destination.
    package mutating func pong(_ number: UInt64, from instance: InstanceID) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .awaitingPong(number) where instance == peer:
            current = .releasing(nil)
            return [.releaseLocks]
        case .awaitingPong:
            return violation("PONG \(number) answers no PING of this switchover, or comes from another instance")
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .releasing, .granted, .refused,
            .renewing,
            .cancelling,
            .running, .seizing, .paused, .redialing, .recovering:
            return violation("PONG without a PING")
        case .takingBack, .held, .ended, .abandoned, .completed:
            return []
        }
    }

    /// Handles DEVICES_FAILED: the state of a device did not load on the destination.
    package mutating func devicesFailed(device: String, reason: String) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .awaitingPong:
            return takeBack(.loadFailed(device: device, reason: reason), owesWord: false)
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .releasing, .granted, .refused,
            .renewing,
            .cancelling,
            .running, .seizing, .paused, .redialing, .recovering:
            return violation("DEVICES_FAILED where no device is being loaded")
        case .takingBack, .held, .ended:
            owedWord = nil
            return endLink("the destination has failed")
        case .abandoned, .completed:
            return []
        }
    }

    /// Handles RUNNING: the destination has started the workload.
    package mutating func running(_ token: RunToken, from instance: InstanceID) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .granted(let grant) where grant.token == token && instance == peer:
            current = .running(grant)
            return []
        case .cancelling(let grant) where grant.token == token && instance == peer:
            current = .running(grant)
            return answerCancel("the workload has started on the destination")
        case .recovering(let grant, _, let failure) where grant.token == token && instance == peer:
            // The start that began over the earlier link has ended.
            current = .recovering(grant, .started, failure)
            return answerCancel("the workload has started on the destination")
        case .running(let grant) where grant.token == token && instance == peer:
            return []
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing,
            .granted, .refused,
            .renewing,
            .cancelling, .running, .seizing, .paused, .redialing, .recovering, .takingBack, .held, .ended:
            return violation("RUNNING for a RUN that was not sent to this instance, or was refused")
        case .abandoned, .completed:
            return []
        }
    }

    /// Handles START_FAILED: the promise that this token never starts, if `instance` is the one that sent PONG.
    package mutating func startFailed(_ token: RunToken, reason: String, from instance: InstanceID) -> [SourceAction] {
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
            // A repeated RUN is answered twice, and the second answer may arrive after the next RUN was sent.
            return []
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing,
            .granted, .refused,
            .renewing,
            .cancelling, .running, .seizing, .paused, .redialing, .recovering:
            return violation("START_FAILED for a RUN that is not outstanding at this instance")
        case .takingBack, .held, .ended, .abandoned, .completed:
            return []
        }
    }

    /// Handles CANCELLED: the promise that this token never starts, from a destination that waits for nothing more.
    package mutating func cancelled(_ token: RunToken, from instance: InstanceID) -> [SourceAction] {
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
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing,
            .granted, .refused,
            .renewing,
            .cancelling, .running, .seizing, .paused, .redialing, .recovering:
            return violation("CANCELLED where no CANCEL is outstanding")
        case .abandoned, .completed:
            return []
        }
    }

    /// Handles START_REQUEST: `cont` on the destination asks for another RUN.
    ///
    /// - Parameter grant: the content of that RUN, with a token that was never used before.
    package mutating func startRequested(fresh grant: RunGrant) -> [SourceAction] {
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
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing,
            .granted, .renewing,
            .cancelling,
            .running, .seizing, .paused, .redialing, .recovering:
            return violation("START_REQUEST where no start has failed")
        case .takingBack, .held, .ended, .abandoned, .completed:
            return []
        }
    }

    /// Handles COMPLETE_ACK: the workload runs on the destination, which has every page.
    package mutating func completeAcknowledged() -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .running where completeSent:
            current = .completed
            link = nil
            return [.send(.bye)]
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing,
            .granted, .refused,
            .renewing,
            .cancelling, .running, .seizing, .paused, .redialing, .recovering:
            return violation("COMPLETE_ACK before RUNNING or without a COMPLETE")
        case .takingBack, .held, .ended, .abandoned, .completed:
            return []
        }
    }
}

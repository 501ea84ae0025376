/// What the source says.
extension DestinationMachine {
    /// HELLO and REGIONS, from a source with which everything agrees.
    ///
    /// A violation answered here concerns the link that HELLO came on; a link that was accepted before stays.
    public mutating func hello() -> [DestinationAction] {
        switch current {
        case .awaiting:
            isLinked = true
            current = .preparing
            return [.prepareMemory]
        case .preparing where !isLinked:
            return [.violation("memory is still being prepared for a link that broke; try again")]
        case .none, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing, .starting,
            .undoing, .returning, .refused, .running, .completed, .resigned, .failed:
            return [.violation("HELLO where no migration is awaited")]
        }
    }

    /// HELLO that rejoins, from the source instance and for the migration that were accepted before.
    ///
    /// The newest connection wins: one that was not yet noticed to be broken is lost by it.
    public mutating func rejoin() -> RejoinAnswer {
        switch current {
        case .loaded, .granted, .acquiring, .committing, .starting, .undoing, .returning, .refused, .running,
            .completed, .resigned:
            let actions = isLinked ? lose(.linkLost(reason: "the source came over a new connection")) : []
            isLinked = true
            isRejoining = true
            completeCame = false
            return .welcome(actions)
        case .active, .listening, .loading:
            // The source has lost the link before RUN could be sent: it runs the workload, and nothing starts here.
            let failure = SwitchoverFailure.linkLost(reason: "the source came over a new connection")
            return .refuse(
                reason: failure.description,
                isLinked ? [.closeLink(reason: failure.description)] + lose(failure) : []
            )
        case .none, .awaiting, .preparing, .failed:
            return .refuse(reason: "no migration is to be rejoined here", [])
        }
    }

    /// LISTEN: the switchover begins.
    public mutating func listen() -> [DestinationAction] {
        guard isLinked else { return [] }
        guard case .active = current else { return violation("LISTEN out of order") }
        current = .listening(devicesCame: false)
        return [.serveFaults]
    }

    /// DEVICES: the saved state of all devices.
    public mutating func devices() -> [DestinationAction] {
        guard isLinked else { return [] }
        guard case .listening(devicesCame: false) = current else { return violation("DEVICES out of order") }
        current = .listening(devicesCame: true)
        return []
    }

    /// PING: answer once the devices have loaded.
    public mutating func ping(_ number: UInt64) -> [DestinationAction] {
        guard isLinked else { return [] }
        guard case .listening(devicesCame: true) = current else { return violation("PING out of order") }
        current = .loading(ping: number)
        return [.loadDevices]
    }

    /// RUN: the source has let go of the workload.
    ///
    /// A repeated one is answered with the last word on its token.
    public mutating func run(_ grant: RunGrant) -> [DestinationAction] {
        guard isLinked else { return [] }
        let hasRejoined = isRejoining
        isRejoining = false
        if let reason = refusals[grant.token] {
            let refusal = [DestinationAction.send(.startFailed(grant.token, reason: reason))]
            guard hasRejoined, case .refused(_, _, requested: true) = current else { return refusal }
            return refusal + [.send(.startRequest)]
        }
        switch current {
        case .loaded, .refused:
            lostReason = nil
            if let prohibition { return refuse(grant, reason: prohibition) }
            if startsStopped && !contWaits {
                current = .granted(grant)
                return []
            }
            current = .acquiring(grant)
            return [.acquire(grant)]
        case .granted(grant), .acquiring(grant), .committing(grant), .starting(grant), .undoing(grant, _, _),
            .returning(grant, _):
            return []
        case .running(grant), .completed(grant, _):
            return [.send(.running(grant.token))] + completeIfDue()
        case .granted, .acquiring, .committing, .starting, .undoing, .returning, .running, .completed:
            return violation("RUN while another RUN decides")
        case .none, .awaiting, .preparing, .active, .listening, .loading:
            return violation("RUN before PONG was sent")
        case .resigned(let failure, _):
            refusals[grant.token] = failure.description
            return [.send(.startFailed(grant.token, reason: failure.description))]
        case .failed:
            return []
        }
    }

    /// CANCEL: the source wants the workload back.
    ///
    /// Before the commit point it is promised; after it, the answer is the start's result.
    public mutating func cancel(_ token: RunToken) -> [DestinationAction] {
        guard isLinked else { return [] }
        isRejoining = false
        switch current {
        case .listening, .loading:
            // PONG was not sent, so no RUN can be under way.
            isLinked = false
            return [.send(.cancelled(token)), .closeLink(reason: SwitchoverFailure.cancelled.description)]
                + fail(.cancelled)
        case .loaded, .refused, .resigned:
            return resign(token)
        case .granted(let grant) where grant.token == token:
            return resign(token)
        case .acquiring(let grant) where grant.token == token:
            isCancelAsked = true
            return []
        case .committing(let grant) where grant.token == token:
            // Whatever the store will say: from here on nothing starts.
            isCancelAsked = true
            strayLease = grant
            current = .undoing(grant, reason: SwitchoverFailure.cancelled.description, isCommitted: false)
            return [.undo(grant)]
        case .undoing(let grant, _, _) where grant.token == token, .starting(let grant) where grant.token == token:
            isCancelAsked = true
            return []
        case .returning(let grant, _) where grant.token == token:
            strayLease = grant
            return resign(token)
        case .running(let grant) where grant.token == token, .completed(let grant, _) where grant.token == token:
            return [.send(.running(token))] + completeIfDue()
        case .granted, .acquiring, .committing, .starting, .undoing, .returning, .running, .completed:
            return violation("CANCEL for another RUN than the one that decides")
        case .none, .awaiting, .preparing, .active:
            return violation("CANCEL out of order")
        case .failed:
            return []
        }
    }

    /// COMPLETE: the source has sent every page.
    public mutating func complete() -> [DestinationAction] {
        guard isLinked else { return [] }
        switch current {
        case .listening, .loading, .loaded, .granted, .acquiring, .committing, .starting, .undoing, .returning,
            .refused, .running:
            completeCame = true
            return completeIfDue()
        case .completed:
            // The acknowledgement was lost with its link.
            return [.send(.completeAck)]
        case .none, .awaiting, .preparing, .active:
            return violation("COMPLETE out of order")
        case .resigned, .failed:
            return []
        }
    }

    /// BYE: the source is done.
    public mutating func bye() -> [DestinationAction] {
        guard isLinked else { return [] }
        switch current {
        case .completed(let grant, _):
            current = .completed(grant, saidBye: true)
            isLinked = false
            return [.closeLink(reason: "the migration is complete")]
        case .resigned(let failure, _):
            isLinked = false
            return [.closeLink(reason: failure.description)] + settle(failure)
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing,
            .starting, .undoing, .returning, .refused, .running, .failed:
            return violation("BYE before COMPLETE_ACK")
        }
    }
}

package import Identity

/// The source's messages.
extension DestinationMachine {
    /// Handles HELLO and REGIONS from a source that this destination accepts.
    ///
    /// A violation that this returns concerns the link of this HELLO; a link that was accepted earlier stays.
    package mutating func hello() -> [DestinationAction] {
        switch current {
        case .awaiting:
            isLinked = true
            current = .preparing
            return [.prepareMemory]
        case .preparing where !isLinked:
            return [.violation("memory is still being prepared for a link that broke; try again")]
        case .none, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing, .starting,
            .undoing, .returning, .refused, .running, .completed, .abandoned, .resigned, .failed:
            return [.violation("HELLO where no migration is awaited")]
        }
    }

    /// Handles a rejoining HELLO from the source instance and for the migration that were accepted before.
    ///
    /// The newest connection wins: an earlier link whose break was not yet noticed is given up.
    package mutating func rejoin() -> RejoinAnswer {
        switch current {
        case .loaded, .granted, .acquiring, .committing, .starting, .undoing, .returning, .refused, .running,
            .completed, .resigned:
            let actions = isLinked ? lose(.linkLost(reason: "the source came over a new connection")) : []
            isLinked = true
            isRejoining = true
            completeCame = false
            return .welcome(actions)
        case .active, .listening, .loading:
            // The source lost the link before it could send RUN. The source runs the workload, and nothing starts here.
            let failure = SwitchoverFailure.linkLost(reason: "the source came over a new connection")
            return .refuse(
                reason: failure.description,
                isLinked ? [.closeLink(reason: failure.description)] + lose(failure) : []
            )
        case .none, .awaiting, .preparing, .abandoned, .failed:
            return .refuse(reason: "no migration can be rejoined here", [])
        }
    }

    /// Handles LISTEN: the switchover begins.
    package mutating func listen() -> [DestinationAction] {
        guard isLinked else { return [] }
        guard case .active = current else { return violation("LISTEN out of order") }
        current = .listening(devicesCame: false)
        return [.serveFaults]
    }

    /// Handles DEVICES: the saved state of all devices has arrived.
    package mutating func devices() -> [DestinationAction] {
        guard isLinked else { return [] }
        guard case .listening(devicesCame: false) = current else { return violation("DEVICES out of order") }
        current = .listening(devicesCame: true)
        return []
    }

    /// Handles PING: loads the devices, and answers when they have loaded.
    package mutating func ping(_ number: UInt64) -> [DestinationAction] {
        guard isLinked else { return [] }
        guard case .listening(devicesCame: true) = current else { return violation("PING out of order") }
        current = .loading(ping: number)
        return [.loadDevices]
    }

    /// Handles RUN: the source stays stopped and lets this side start the workload.
    ///
    /// A repeated RUN is answered with this side's latest answer about its token.
    package mutating func run(_ grant: RunGrant) -> [DestinationAction] {
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
        case .abandoned, .failed:
            return []
        }
    }

    /// Handles CANCEL: the source wants to take the workload back.
    ///
    /// Before the commit point, the answer is a promise. After it, the answer is the result of the start.
    package mutating func cancel(_ token: RunToken) -> [DestinationAction] {
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
            // No start follows, whatever the store answers.
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
        case .abandoned, .failed:
            return []
        }
    }

    /// Handles COMPLETE: the source has sent every page.
    package mutating func complete() -> [DestinationAction] {
        guard isLinked else { return [] }
        switch current {
        case .listening, .loading, .loaded, .granted, .acquiring, .committing, .starting, .undoing, .returning,
            .refused, .running:
            completeCame = true
            return completeIfDue()
        case .completed:
            // The acknowledgement was lost with the link that carried it.
            return [.send(.completeAck)]
        case .none, .awaiting, .preparing, .active:
            return violation("COMPLETE out of order")
        case .abandoned, .resigned, .failed:
            return []
        }
    }

    /// Handles BYE: the source needs nothing more.
    package mutating func bye() -> [DestinationAction] {
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
            .starting, .undoing, .returning, .refused, .running, .abandoned, .failed:
            return violation("BYE before COMPLETE_ACK")
        }
    }
}

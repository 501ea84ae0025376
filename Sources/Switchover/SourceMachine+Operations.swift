/// The link, and the ends of operations.
extension SourceMachine {
    /// The control link stands.
    public mutating func linkUp() -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .setup: return [.send(.hello)]
        case .redialing: return [.send(.rejoin)]
        case .takingBack, .held, .ended: return owedWord == nil ? endLink("nothing is left to say") : [.send(.rejoin)]
        case .none, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing,
            .cancelling, .running, .seizing, .paused, .recovering, .abandoned, .completed:
            return []
        }
    }

    /// The control link broke, or could not be made.
    public mutating func linkLost(reason: String) -> [SourceAction] {
        isLinked ? lose(.linkLost(reason: reason)) : []
    }

    mutating func violation(_ what: String) -> [SourceAction] {
        [.violation(what)] + lose(.violation(what))
    }

    /// Before RUN the workload is taken back as soon as the operation under way ends. After RUN it stays stopped until
    /// the lease, a promise or the operator says more.
    mutating func lose(_ failure: SwitchoverFailure) -> [SourceAction] {
        link = nil
        switch current {
        case .setup, .active: current = .ended(failure)
        case .stopping(let earlier): current = .stopping(earlier ?? failure)
        case .saving(let earlier): current = .saving(earlier ?? failure)
        case .awaitingPong: return takeBack(failure)
        case .releasing(let earlier): current = .releasing(earlier ?? failure)
        case .granted(let grant), .cancelling(let grant):
            guard usesLease else { return pause(grant, .unknown, failure) }
            current = .seizing(grant, failure)
            return [.seizeLease(grant)]
        case .refused(_, let reason), .renewing(_, let reason): return takeBack(.startRefused(reason: reason))
        case .running(let grant): return pause(grant, .started, failure)
        case .redialing(let grant, let standing, _), .recovering(let grant, let standing, _):
            return pause(grant, standing, failure)
        case .takingBack, .held, .ended:
            return redialIfOwed()
        case .none, .seizing, .paused, .abandoned, .completed: break
        }
        return []
    }

    private mutating func pause(
        _ grant: RunGrant,
        _ standing: Standing,
        _ failure: SwitchoverFailure
    ) -> [SourceAction] {
        current = .paused(grant, standing, failure)
        let isCancelWanted = cancelWanted
        let answer = cancelWaits ? answerCancel(failureReason) : []
        // Whoever asked was told that it is unknown; the wish stays for the next link.
        cancelWanted = isCancelWanted && standing == .unknown
        return answer
    }

    /// Resumes here. A destination that may have sent PONG is owed a word, so that it waits no longer.
    mutating func takeBack(_ failure: SwitchoverFailure, owesWord: Bool = true) -> [SourceAction] {
        let token: RunToken?
        var isCancelSent = false
        switch current {
        case .awaitingPong, .releasing:
            token = peerTellsStart ? RunToken.none : nil
        case .granted(let grant), .seizing(let grant, _), .recovering(let grant, _, _):
            token = grant.token
        case .cancelling(let grant):
            token = grant.token
            isCancelSent = true
        case .refused(let refused, _), .renewing(let refused, _):
            token = refused
        case .none, .setup, .active, .stopping, .saving, .running, .paused, .redialing, .takingBack, .held, .ended,
            .abandoned, .completed:
            token = nil
        }
        owedWord = owesWord ? token : nil
        current = .takingBack(failure, seenAs: state)
        // A promise beats the record: the workload resumes at once, and the record is mended meanwhile.
        var actions = [SourceAction.resume]
        if usesLease, let token, token != RunToken.none { actions += regainLease(by: token) }
        guard let owedWord else { return actions }
        guard isLinked else { return actions + redialIfOwed() }
        return actions + (isCancelSent ? [] : [.send(.cancel(owedWord))])
    }

    private mutating func redialIfOwed() -> [SourceAction] {
        guard owedWord != nil else { return [] }
        return [.redial(newLink())]
    }

    /// Makes the lease's record name the source again, by the promise that the RUN with this token never starts.
    ///
    /// One such operation is under way at a time: a second one, late, could write over what the lease became meanwhile.
    mutating func regainLease(by token: RunToken) -> [SourceAction] {
        guard regaining == nil else { return [] }
        regaining = token
        return [.regainLease(token)]
    }

    /// Redialing to tell the destination that the workload was taken back was given up.
    public mutating func redialGivenUp() {
        switch current {
        case .takingBack, .held, .ended:
            link = nil
            owedWord = nil
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing,
            .cancelling, .running, .seizing, .paused, .redialing, .recovering, .abandoned, .completed:
            break
        }
    }

    /// The workload executes nothing any more.
    public mutating func stopped() -> [SourceAction] {
        guard case .stopping(let failure) = current else { return [] }
        if let failure { return takeBack(failure) }
        current = .saving(nil)
        return [.save]
    }

    /// The workload could not be stopped.
    public mutating func stopFailed(reason: String) -> [SourceAction] {
        guard case .stopping(let failure) = current else { return [] }
        return takeBack(failure ?? .stopFailed(reason: reason))
    }

    /// All devices are saved.
    ///
    /// `ping` is the number that PONG has to repeat.
    public mutating func saved(ping: UInt64) -> [SourceAction] {
        guard case .saving(let failure) = current else { return [] }
        if let failure { return takeBack(failure) }
        current = .awaitingPong(ping: ping)
        return [.send(.listen), .send(.devices), .send(.ping(ping))] + completeOnce()
    }

    /// A device could not be saved.
    public mutating func saveFailed(device: String, reason: String) -> [SourceAction] {
        guard case .saving(let failure) = current else { return [] }
        return takeBack(failure ?? .saveFailed(device: device, reason: reason))
    }

    /// The disk locks are released.
    ///
    /// `grant` carries a token that was never used before.
    public mutating func released(fresh grant: RunGrant) -> [SourceAction] {
        guard case .releasing(let failure) = current else { return [] }
        if let failure { return takeBack(failure) }
        // A destination that does not tell is taken to run as soon as it may.
        current = peerTellsStart ? .granted(grant) : .running(grant)
        return [.send(.run(grant))]
    }

    /// The disk locks could not be released.
    public mutating func releaseFailed(reason: String) -> [SourceAction] {
        guard case .releasing(let failure) = current else { return [] }
        return takeBack(failure ?? .releaseFailed(reason: reason))
    }

    /// The lease is the source's: the destination's start was, or will be, refused by it.
    public mutating func leaseTaken() -> [SourceAction] {
        guard case .seizing(_, let failure) = current else { return [] }
        return takeBack(cancelWanted ? .cancelled : failure)
    }

    /// The lease names the destination.
    ///
    /// It has started, unless it has promised since that it does not.
    public mutating func leaseRefused() -> [SourceAction] {
        guard case .seizing(let grant, _) = current else { return [] }
        return pause(grant, .unknown, .leaseNamesDestination)
    }

    /// The lease could not be asked.
    public mutating func leaseUnreachable(reason: String) -> [SourceAction] {
        guard case .seizing(let grant, _) = current else { return [] }
        return pause(grant, .unknown, .leaseUnreachable(reason: reason))
    }

    /// The lease's record names the source again; a RUN that waits for that is sent.
    ///
    /// `grant` carries the record's epoch, and a token that was never used before.
    public mutating func leaseRegained(fresh grant: RunGrant) -> [SourceAction] {
        regaining = nil
        guard case .renewing = current else { return [] }
        current = .granted(grant)
        return [.send(.run(grant))]
    }

    /// The lease's record names somebody whom the promise does not speak of, and stays.
    ///
    /// A workload that stands still here does not resume. One that runs, by the promise, is the operator's to look at.
    public mutating func leaseSuperseded(reason: String) -> [SourceAction] {
        regaining = nil
        supersession = reason
        guard case .renewing(let token, let refusal) = current else { return [] }
        owedWord = token
        current = .held(.startRefused(reason: refusal), reason: reason)
        return answerCancel(failureReason) + (isLinked ? [.send(.cancel(token))] : redialIfOwed())
    }

    /// The workload runs here again.
    public mutating func resumed() -> [SourceAction] {
        guard case .takingBack(let failure, _) = current else { return [] }
        current = .ended(failure)
        return answerCancel(nil) + endLinkUnlessOwed(failure.description)
    }

    /// The workload could not be resumed, as its disk locks could not be taken.
    ///
    /// It stays stopped.
    public mutating func resumeFailed(reason: String) -> [SourceAction] {
        guard case .takingBack(let failure, _) = current else { return [] }
        current = .held(failure, reason: reason)
        return answerCancel(failureReason) + endLinkUnlessOwed(failure.description)
    }

    private mutating func endLinkUnlessOwed(_ reason: String) -> [SourceAction] {
        owedWord == nil ? endLink(reason) : []
    }

    mutating func endLink(_ reason: String) -> [SourceAction] {
        guard isLinked else { return [] }
        link = nil
        return [.closeLink(reason: reason)]
    }

    /// Over a new link: what the destination has is known, and the lanes stand.
    public mutating func resynced() -> [SourceAction] {
        guard isLinked, case .recovering(let grant, let standing, _) = current else { return [] }
        switch standing {
        case .started:
            current = .running(grant)
        case .unknown where cancelWanted:
            current = .cancelling(grant)
            return [.send(.cancel(grant.token))]
        case .unknown:
            current = .granted(grant)
        }
        return [.send(.run(grant))] + completeOnce()
    }

    /// Every page was sent at least once over this link.
    public mutating func allPagesSent() -> [SourceAction] {
        pagesSent = true
        return completeOnce()
    }

    mutating func completeOnce() -> [SourceAction] {
        guard isLinked, pagesSent, !completeSent else { return [] }
        switch current {
        case .awaitingPong, .releasing, .granted, .refused, .renewing, .cancelling, .running:
            completeSent = true
            return [.send(.complete)]
        case .none, .setup, .active, .stopping, .saving, .seizing, .paused, .redialing, .recovering, .takingBack,
            .held, .ended, .abandoned, .completed:
            return []
        }
    }
}

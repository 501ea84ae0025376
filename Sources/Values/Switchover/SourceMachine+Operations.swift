import Identity

/// Events of the link, and the results of operations.
extension SourceMachine {
    /// Handles a new control link that stands.
    package mutating func linkUp() -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .setup: return [.send(.hello)]
        case .redialing: return [.send(.rejoin)]
        case .takingBack, .held, .ended:
            return owedWord == nil ? endLink("the link is not needed any more") : [.send(.rejoin)]
        case .none, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing, .granted,
            .refused,
            .renewing,
            .cancelling, .running, .seizing, .paused, .recovering, .abandoned, .completed:
            return []
        }
    }

    /// Handles a control link that broke.
    package mutating func linkLost(reason: String) -> [SourceAction] {
        isLinked ? lose(.linkLost(reason: reason)) : []
    }

    /// Handles a control link that either side has ended, or that could not be made, as a broken link.
    ///
    /// - Parameter reason: a sentence of its own.
    package mutating func linkEnded(reason: String) -> [SourceAction] {
        isLinked ? lose(.linkEnded(reason: reason)) : []
    }

    /// Handles pages that can no longer be read here: the link is given up, since they cannot be sent over any link.
    package mutating func memoryLost(reason: String) -> [SourceAction] {
        isLinked ? lose(.memoryLost(reason: reason)) : []
    }

    mutating func violation(_ what: String) -> [SourceAction] {
        [.violation(what)] + lose(.violation(what))
    }

    /// Gives up the link.
    ///
    /// Before RUN, the workload is taken back as soon as the current operation ends. After RUN, the workload stays
    /// stopped until the lease, a promise or the operator decides.
    mutating func lose(_ failure: SwitchoverFailure) -> [SourceAction] {
        link = nil
        switch current {
        case .setup, .active: current = .ended(failure)
        case .preparing(let earlier): current = .preparing(earlier ?? failure)
        case .stopping(let earlier): current = .stopping(earlier ?? failure)
        case .saving(let earlier): current = .saving(earlier ?? failure)
        case .preSwitchover, .awaitingPong: return takeBack(failure)
        case .releasing(let earlier): current = .releasing(earlier ?? failure)
        case .granted(let grant), .cancelling(let grant):
            guard usesLease else { return pause(grant, .unknown, failure) }
            current = .seizing(grant, failure)
            return [.seizeLease(grant)]
        case .refused(_, let reason), .renewing(_, let reason): return takeBack(.startRefused(reason: reason))
        case .running(let grant): return pause(grant, .started, failure)
        case .redialing(let grant, let standing, let earlier), .recovering(let grant, let standing, let earlier):
            guard usesLease, standing == .unknown, earlier != .leaseNamesDestination else {
                return pause(grant, standing, failure)
            }
            current = .seizing(grant, failure)
            return [.seizeLease(grant)]
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
        let answer = cancelWaits ? answerCancel(resumesOnWord ? undecidedCancel : failureReason) : []
        // The waiting `cancel` is answered with "unknown"; the next link still sends CANCEL.
        cancelWanted = isCancelWanted && standing == .unknown
        return answer
    }

    /// Resumes the workload here, and notifies a destination that may have sent PONG, so that it stops waiting.
    mutating func takeBack(_ failure: SwitchoverFailure, owesWord: Bool = true) -> [SourceAction] {
        let token: RunToken?
        var (isCancelSent, isRefused) = (false, false)
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
            isRefused = true
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .running, .paused, .redialing,
            .takingBack,
            .held, .ended,
            .abandoned, .completed:
            token = nil
        }
        // A refused token is answered already. Token 0 tells the destination that this is a cancel.
        owedWord = owesWord ? (isRefused && failure == .cancelled ? RunToken.none : token) : nil
        current = .takingBack(failure, seenAs: state)
        // A promise outranks the lease's record: the workload resumes at once, and the record is rewritten meanwhile.
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

    /// Starts writing the source into the lease's record again, allowed by the promise about this token.
    ///
    /// One such write is under way at a time: a late second one could overwrite what the record became meanwhile.
    mutating func regainLease(by token: RunToken) -> [SourceAction] {
        guard regaining == nil else { return [] }
        regaining = token
        return [.regainLease(token)]
    }

    /// Handles the end of redialing: the destination was not reached, and does not hear that the workload was taken
    /// back.
    package mutating func redialGivenUp() {
        switch current {
        case .takingBack, .held, .ended:
            link = nil
            owedWord = nil
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing,
            .granted, .refused,
            .renewing, .cancelling, .running, .seizing, .paused, .redialing, .recovering, .abandoned, .completed:
            break
        }
    }

    /// Handles a workload that is ready to be stopped.
    package mutating func prepared() -> [SourceAction] {
        guard case .preparing(let failure) = current else { return [] }
        // The workload was not stopped, and continues to run.
        if let failure { return takeBack(failure) }
        current = .stopping(nil)
        return [.stop]
    }

    /// Handles a stopped workload: it executes no instruction any more.
    package mutating func stopped() -> [SourceAction] {
        guard case .stopping(let failure) = current else { return [] }
        if let failure { return takeBack(failure) }
        if pausesBeforeSwitchover {
            current = .preSwitchover
            return []
        }
        current = .saving(nil)
        return [.save]
    }

    /// Handles a workload that could not be prepared or stopped.
    package mutating func stopFailed(reason: String) -> [SourceAction] {
        switch current {
        case .preparing(let failure), .stopping(let failure):
            return takeBack(failure ?? .stopFailed(reason: reason))
        default: return []
        }
    }

    /// Handles the saved state of all devices.
    ///
    /// - Parameter ping: the number of the PING, which PONG must repeat.
    package mutating func saved(ping: UInt64) -> [SourceAction] {
        guard case .saving(let failure) = current else { return [] }
        if let failure { return takeBack(failure) }
        current = .awaitingPong(ping: ping)
        return [.send(.listen), .send(.devices), .send(.ping(ping))] + completeOnce()
    }

    /// Handles a device whose state could not be saved.
    package mutating func saveFailed(device: String, reason: String) -> [SourceAction] {
        guard case .saving(let failure) = current else { return [] }
        return takeBack(failure ?? .saveFailed(device: device, reason: reason))
    }

    /// Handles released disk locks.
    ///
    /// - Parameter grant: the content of the RUN to send, with a token that was never used before.
    package mutating func released(fresh grant: RunGrant) -> [SourceAction] {
        guard case .releasing(let failure) = current else { return [] }
        if let failure { return takeBack(failure) }
        // A destination without START_RESULT never reports its start, so sending RUN counts as RUNNING.
        current = peerTellsStart ? .granted(grant) : .running(grant)
        return [.send(.run(grant))]
    }

    /// Handles disk locks that could not be released.
    package mutating func releaseFailed(reason: String) -> [SourceAction] {
        guard case .releasing(let failure) = current else { return [] }
        return takeBack(failure ?? .releaseFailed(reason: reason))
    }

    /// Handles a lease taken by the source: the lease has refused the destination's start, or will refuse it.
    package mutating func leaseTaken() -> [SourceAction] {
        guard case .seizing(_, let failure) = current else { return [] }
        return takeBack(cancelWanted ? .cancelled : failure)
    }

    /// Handles a lease that names the destination.
    ///
    /// The workload has started there, unless the destination has since promised that this token never starts.
    package mutating func leaseRefused() -> [SourceAction] {
        guard case .seizing(let grant, _) = current else { return [] }
        return pause(grant, .unknown, .leaseNamesDestination)
    }

    /// Handles a lease that could not be read or written.
    package mutating func leaseUnreachable(reason: String) -> [SourceAction] {
        guard case .seizing(let grant, _) = current else { return [] }
        return pause(grant, .unknown, .leaseUnreachable(reason: reason))
    }

    /// Tries the lease again some time after it was unreachable, unless a link is being made.
    package mutating func leaseDue() -> [SourceAction] {
        guard usesLease, case .paused(let grant, .unknown, .leaseUnreachable(let reason)) = current else { return [] }
        current = .seizing(grant, .leaseUnreachable(reason: reason))
        return [.seizeLease(grant)]
    }

    /// Handles a lease record that names the source again, and sends the RUN that waited for that record.
    ///
    /// - Parameter grant: the content of that RUN, with the record's epoch and a token that was never used before.
    package mutating func leaseRegained(fresh grant: RunGrant) -> [SourceAction] {
        regaining = nil
        guard case .renewing = current else { return [] }
        current = .granted(grant)
        return [.send(.run(grant))]
    }

    /// Handles a lease record that cannot be rewritten: it names an owner that the promise does not cover.
    ///
    /// A workload that is stopped here stays stopped. A workload that the promise has already resumed keeps running,
    /// and the operator decides.
    package mutating func leaseSuperseded(reason: String) -> [SourceAction] {
        regaining = nil
        supersession = reason
        guard case .renewing(let token, let refusal) = current else { return [] }
        owedWord = token
        current = .held(.startRefused(reason: refusal), reason: reason + SourceMachine.contAgain)
        return answerCancel(failureReason) + (isLinked ? [.send(.cancel(token))] : redialIfOwed())
    }

    /// Handles a resumed workload: it runs here again.
    package mutating func resumed() -> [SourceAction] {
        guard case .takingBack(let failure, _) = current else { return [] }
        current = .ended(failure)
        return answerCancel(nil) + endLinkUnlessOwed(failure.description)
    }

    /// Handles a workload that could not be resumed since its disk locks could not be taken; the workload stays
    /// stopped.
    ///
    /// - Parameters:
    ///   - reason: why the workload cannot be resumed.
    ///   - isFinal: whether another attempt cannot succeed.
    package mutating func resumeFailed(reason: String, isFinal: Bool = false) -> [SourceAction] {
        guard case .takingBack(let failure, _) = current else { return [] }
        current = .held(failure, reason: isFinal ? reason : reason + SourceMachine.contAgain)
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

    /// Handles the end of the comparison over a new link: the missing pages are known, and the lanes stand.
    package mutating func resynced() -> [SourceAction] {
        // START_FAILED may have come before the comparison ended.
        guard case .recovering(let grant, let standing, _) = current else { return completeOnce() }
        guard isLinked else { return [] }
        switch standing {
        case .started:
            current = .running(grant)
        case .unknown where cancelWanted:
            current = .cancelling(grant)
            // A start that has ended meanwhile wins, and then the destination waits for COMPLETE.
            return [.send(.cancel(grant.token))] + completeOnce()
        case .unknown:
            current = .granted(grant)
        }
        return [.send(.run(grant))] + completeOnce()
    }

    /// Handles the last page: every page was sent at least once over this link.
    package mutating func allPagesSent() -> [SourceAction] {
        pagesSent = true
        return completeOnce()
    }

    mutating func completeOnce() -> [SourceAction] {
        guard isLinked, pagesSent, !completeSent else { return [] }
        switch current {
        case .awaitingPong, .releasing, .granted, .refused, .renewing, .cancelling, .running:
            completeSent = true
            return [.send(.complete)]
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .seizing, .paused, .redialing,
            .recovering,
            .takingBack, .held, .ended, .abandoned, .completed:
            return []
        }
    }
}

/// What an operator asks of a source.
extension SourceMachine {
    /// `migrate`: look for the destination.
    public mutating func migrate() -> MigrateAnswer {
        guard case .none = current else {
            return .refuse(reason: "a migration was begun before, it is \(state.rawValue)")
        }
        current = .setup(startAsked: false)
        return .connect(newLink())
    }

    /// `migrate-start-postcopy`: begin the switchover, or remember it until READY.
    public mutating func startPostcopy() -> StartPostcopyAnswer {
        switch current {
        case .none:
            return .refuse(reason: "no migration is under way; run migrate first")
        case .setup:
            current = .setup(startAsked: true)
            return .remember
        case .active:
            current = .stopping(nil)
            return .stop
        case .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing, .cancelling, .running,
            .seizing, .paused, .redialing, .recovering, .takingBack, .held, .ended, .abandoned, .completed:
            return .refuse(reason: "the switchover was begun before, the migration is \(state.rawValue)")
        }
    }

    /// Goes on after ``SourceAction/proceed``.
    public mutating func proceed() -> [SourceAction] {
        guard case .active(startAsked: true) = current else { return [] }
        current = .stopping(nil)
        return [.stop]
    }

    /// `migrate_cancel`: take the workload back, unless it has started on the destination.
    public mutating func cancel() -> CancelAnswer {
        switch current {
        case .none, .ended:
            return .succeeded
        case .setup, .active:
            current = .ended(.cancelled)
            link = nil
            cancelWaits = true
            return .waits([.closeLink(reason: SwitchoverFailure.cancelled.description)] + answerCancel(nil))
        case .stopping(let failure):
            current = .stopping(failure ?? .cancelled)
        case .saving(let failure):
            current = .saving(failure ?? .cancelled)
        case .releasing(let failure):
            current = .releasing(failure ?? .cancelled)
        case .awaitingPong, .refused, .renewing:
            cancelWaits = true
            return .waits(takeBack(.cancelled))
        case .granted(let grant):
            current = .cancelling(grant)
            cancelWaits = true
            cancelWanted = true
            return .waits([.send(.cancel(grant.token))])
        case .cancelling, .seizing, .takingBack:
            break
        case .paused(let grant, .unknown, let failure):
            cancelWanted = true
            guard usesLease else {
                return .refuse(reason: "\(failureReason ?? ""); run recover, and the cancel is decided first")
            }
            current = .seizing(grant, failure)
            cancelWaits = true
            return .waits([.seizeLease(grant)])
        case .redialing(_, .unknown, _), .recovering(_, .unknown, _):
            break
        case .paused(_, .started, _):
            return .refuse(
                reason: "the workload has started on the destination; if that is gone for good: pageferry cancel "
                    + "--workload-is-lost"
            )
        case .running, .completed, .redialing(_, .started, _), .recovering(_, .started, _):
            return .refuse(reason: "the workload has started on the destination")
        case .held:
            return .refuse(reason: failureReason ?? "")
        case .abandoned:
            return .refuse(reason: failureReason ?? "")
        }
        cancelWaits = true
        cancelWanted = true
        return .waits([])
    }

    /// A `cancel` has waited too long: whoever asked is told what is known. The wish stays.
    public mutating func cancelOverdue() -> [SourceAction] {
        guard cancelWaits else { return [] }
        let answer: String
        switch current {
        case .cancelling, .redialing(_, .unknown, _), .recovering(_, .unknown, _), .seizing:
            answer =
                "the destination has not answered yet, whether the workload runs there is unknown; it is taken back "
                + "here as soon as the destination says that it never starts. Look at the destination (pageferry "
                + "status): end what holds its start up, or end that agent, then run cancel again"
        case .takingBack:
            answer = "the workload is being resumed here, which has not ended yet; look again with pageferry status"
        case .stopping, .saving, .releasing:
            answer = "the workload is being stopped here, which has not ended yet; it is taken back then"
        case .none, .setup, .active, .awaitingPong, .granted, .refused, .renewing, .running, .paused, .redialing,
            .recovering, .held, .ended, .abandoned, .completed:
            answer = "the migration is \(state.rawValue); look again with pageferry status"
        }
        cancelWaits = false
        return [.cancelUnknown(reason: answer)]
    }

    /// `migrate` with `resume`: make a new link for a paused migration.
    public mutating func recover() -> RecoverAnswer {
        guard case .paused(let grant, let standing, let failure) = current else {
            return .refuse(reason: "no migration is paused here, it is \(state.rawValue)")
        }
        current = .redialing(grant, standing, failure)
        return .connect(newLink())
    }

    /// The operator's word that the destination is gone for good, and whether the workload has executed there.
    ///
    /// A workload that has comes back never; one that has not is taken back, unless a lease knows better.
    public mutating func destinationIsGone(hasRun: Bool) -> DestinationGoneAnswer {
        guard case .paused(_, let standing, let failure) = current else {
            return .refuse(reason: "the source does not wait for a destination, the migration is \(state.rawValue)")
        }
        if hasRun {
            current = .abandoned(failure)
            return .abandoned
        }
        guard standing == .unknown else { return .refuse(reason: "the workload has run on the destination") }
        guard !usesLease else { return .refuse(reason: "the run lease knows who runs; run cancel") }
        owedWord = nil
        current = .takingBack(failure, seenAs: .postcopyPaused)
        return .takeBack
    }

    /// Asks a source that stays stopped because it could not resume to try again.
    public mutating func retryResume() -> RetryResumeAnswer {
        guard case .held(let failure, _) = current else {
            return .refuse(reason: "no resume has failed here, the migration is \(state.rawValue)")
        }
        if let supersession { return .refuse(reason: supersession) }
        current = .takingBack(failure, seenAs: state)
        return .resume
    }

    /// Answers every `cancel` that waits; nil means that the workload is here.
    mutating func answerCancel(_ failure: String?) -> [SourceAction] {
        cancelWanted = false
        guard cancelWaits else { return [] }
        cancelWaits = false
        if let failure { return [.cancelFailed(reason: failure)] }
        return [.cancelSucceeded]
    }
}

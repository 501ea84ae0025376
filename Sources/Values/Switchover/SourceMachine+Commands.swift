import Identity

/// The operator's commands to a source.
extension SourceMachine {
    /// Handles `migrate`: connects to the destination.
    package mutating func migrate() -> MigrateAnswer {
        guard case .none = current else {
            return .refuse(reason: "a migration was begun before; its state is \(state.rawValue)")
        }
        current = .setup(startAsked: false)
        return .connect(newLink())
    }

    /// Handles `migrate-start-postcopy`: begins the switchover now, or once READY has come.
    package mutating func startPostcopy() -> StartPostcopyAnswer {
        switch current {
        case .none:
            return .refuse(reason: "no migration is under way; run migrate first")
        case .setup:
            current = .setup(startAsked: true)
            return .remember
        case .active:
            current = .preparing(nil)
            return .prepare
        case .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing,
            .cancelling,
            .running, .seizing, .paused, .redialing, .recovering, .takingBack, .held:
            return .refuse(reason: "the switchover was begun before, the migration is \(state.rawValue)")
        case .ended:
            return .refuse(reason: "the last migration is \(state.rawValue); run migrate first")
        case .abandoned, .completed:
            return .refuse(reason: "the last migration is \(state.rawValue)")
        }
    }

    /// Continues after ``SourceAction/proceed``.
    package mutating func proceed() -> [SourceAction] {
        guard case .active(startAsked: true) = current else { return [] }
        current = .preparing(nil)
        return [.prepare]
    }

    /// Handles `migrate-continue`: saves the devices of a workload that is stopped in pre-switchover.
    package mutating func migrateContinue() -> MigrateContinueAnswer {
        guard case .preSwitchover = current else {
            return .refuse(reason: "the migration does not wait in pre-switchover, it is \(state.rawValue)")
        }
        current = .saving(nil)
        return .save
    }

    /// Handles `migrate_cancel`: takes the workload back, unless the workload has started on the destination.
    package mutating func cancel() -> CancelAnswer {
        switch current {
        case .none, .ended:
            return .succeeded
        case .setup, .active:
            current = .ended(.cancelled)
            link = nil
            cancelWaits = true
            return .waits([.closeLink(reason: SwitchoverFailure.cancelled.description)] + answerCancel(nil))
        case .preparing(let failure):
            current = .preparing(failure ?? .cancelled)
        case .stopping(let failure):
            current = .stopping(failure ?? .cancelled)
        case .saving(let failure):
            current = .saving(failure ?? .cancelled)
        case .releasing(let failure):
            current = .releasing(failure ?? .cancelled)
        case .preSwitchover, .awaitingPong, .refused, .renewing:
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
                return .refuse(reason: undecidedCancel)
            }
            current = .seizing(grant, failure)
            cancelWaits = true
            return .waits([.seizeLease(grant)])
        case .redialing(_, .unknown, _), .recovering(_, .unknown, _):
            break
        case .paused(_, .started, _):
            return .refuse(
                reason: "the workload has started on the destination; if that is gone for good: "
                    + "pageferry-destination-gone with has-run true"
            )
        case .running, .completed, .redialing(_, .started, _), .recovering(_, .started, _):
            return .refuse(reason: "the workload has started on the destination")
        case .held:
            return .refuse(reason: failureReason ?? "")
        case .abandoned:
            return .refuse(reason: "\(failureReason ?? ""); nothing is left to cancel")
        }
        cancelWaits = true
        cancelWanted = true
        return .waits([])
    }

    /// The answer to a `cancel` that only the next link or the operator's word can decide.
    var undecidedCancel: String {
        "\(failureReason ?? ""); the cancel stays in force, and the next link decides it first: run migrate with resume; "
            + SourceMachine.goneBeforeStart
    }

    /// Why the run lease, and not an operator, decides whether the workload resumes here.
    package static let leaseDecides = "the run lease decides who runs the workload; run migrate_cancel"

    /// What an operator may state of a destination that does not answer after RUN was sent to it.
    private static let goneBeforeStart =
        "if the destination is gone for good and the workload never ran there: pageferry-destination-gone with has-run "
        + "false"

    /// Answers a `cancel` that has waited too long with what is known; the cancel itself stays in force.
    package mutating func cancelOverdue() -> [SourceAction] {
        guard cancelWaits else { return [] }
        let answer: String
        switch current {
        case .cancelling, .redialing(_, .unknown, _), .recovering(_, .unknown, _), .seizing:
            answer =
                "the destination has not answered yet, and whether the workload runs there is unknown; the workload "
                + "resumes here as soon as the destination promises never to start it; look at the destination with "
                + "query-migrate, end what holds its start up, or end that agent, then run migrate_cancel again"
                + (resumesOnWord ? "; \(SourceMachine.goneBeforeStart)" : "")
        case .takingBack:
            answer = "the workload is still being resumed here; look again with query-migrate"
        case .preparing, .stopping, .saving, .releasing:
            answer =
                "the workload is still being prepared, stopped or saved; after that the migration ends, and the workload "
                + "stays here"
        case .none, .setup, .active, .preSwitchover, .awaitingPong, .granted, .refused, .renewing, .running, .paused,
            .redialing, .recovering, .held, .ended, .abandoned, .completed:
            answer = "the migration is \(state.rawValue); look again with query-migrate"
        }
        cancelWaits = false
        return [.cancelUnknown(reason: answer)]
    }

    /// Handles `migrate` with `resume`: makes a new link for a paused migration.
    package mutating func recover() -> RecoverAnswer {
        guard case .paused(let grant, let standing, let failure) = current else {
            return .refuse(reason: "no migration is paused here, it is \(state.rawValue)")
        }
        current = .redialing(grant, standing, failure)
        return .connect(newLink())
    }

    /// Handles the operator's word that the destination is gone for good.
    ///
    /// With `hasRun`, the workload has run on the destination and is never resumed here. Without `hasRun`, the workload
    /// is taken back; with a run lease the command is refused, since the lease decides.
    package mutating func destinationIsGone(hasRun: Bool) -> DestinationGoneAnswer {
        if case .seizing = current {
            return .refuse(
                reason:
                    "the run lease is being asked who runs the workload; look again with query-migrate in some seconds"
            )
        }
        if case .abandoned = current {
            return .refuse(reason: "\(failureReason ?? ""); nothing is left to do here")
        }
        guard case .paused(_, let standing, let failure) = current else {
            return .refuse(reason: "the source does not wait for a destination, the migration is \(state.rawValue)")
        }
        if hasRun {
            current = .abandoned(failure)
            return .abandoned
        }
        guard standing == .unknown else {
            return .refuse(
                reason: "the workload has run on the destination; if that is gone for good: "
                    + "pageferry-destination-gone with has-run true"
            )
        }
        guard !usesLease else {
            return .refuse(reason: SourceMachine.leaseDecides)
        }
        owedWord = nil
        current = .takingBack(failure, seenAs: .postcopyPaused)
        return .takeBack
    }

    /// Retries a resume that has failed.
    package mutating func retryResume() -> RetryResumeAnswer {
        guard case .held(let failure, _) = current else {
            return .refuse(reason: "no resume has failed here, the migration is \(state.rawValue)")
        }
        if let supersession { return .refuse(reason: supersession) }
        current = .takingBack(failure, seenAs: state)
        return .resume
    }

    /// Answers every `cancel` that waits; with a nil `failure` the workload is here.
    mutating func answerCancel(_ failure: String?) -> [SourceAction] {
        cancelWanted = false
        guard cancelWaits else { return [] }
        cancelWaits = false
        if let failure { return [.cancelFailed(reason: failure)] }
        return [.cancelSucceeded]
    }
}

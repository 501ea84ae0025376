/// The answer to the operator's word that the source is gone.
package enum SourceGoneAnswer: Hashable, Sendable {
    /// Accepted: the migration has failed. End the workload, since its missing pages never arrive.
    case abandoned
    /// The command fails with this reason.
    case refuse(reason: String)
}

/// The answer to `migrate_cancel` at the destination.
package enum DestinationCancelAnswer: Hashable, Sendable {
    /// Accepted: no workload arrives here. Perform these actions.
    case done([DestinationAction])
    /// The command fails with this reason.
    case refuse(reason: String)
}

extension DestinationMachine {
    /// Handles `migrate_cancel`: the operator gives up a migration that is about to arrive.
    ///
    /// Before PONG nothing can start here, and the source resumes by itself. After PONG a RUN may be under way: a
    /// source whose link stands decides, and the command is refused. If the link is broken, this side gives up; a
    /// source that reconnects is answered with the promise that nothing starts.
    package mutating func migrateCancel() -> DestinationCancelAnswer {
        let reason = SwitchoverFailure.cancelled.description
        switch current {
        case .none, .awaiting:
            return .refuse(reason: nothingToCancel)
        case .resigned(_, saidBye: true), .failed:
            return .done([])
        case .preparing:
            guard isLinked else { return .refuse(reason: nothingToCancel) }
            isLinked = false
            return .done([.closeLink(reason: reason)])
        case .active, .listening, .loading:
            isLinked = false
            return .done([.closeLink(reason: reason)] + fail(.cancelled))
        case .loaded where !isLinked, .granted where !isLinked, .refused where !isLinked:
            if case .granted(let grant) = current { refusals[grant.token] = reason }
            current = .resigned(.cancelled, saidBye: false)
            isSourceGivenUp = true
            return .done(answerCont(failure: reason))
        case .running where !isLinked:
            return .refuse(
                reason:
                    "the workload runs here and waits for pages of its source; if the source is gone for good: "
                    + "pageferry-source-gone"
            )
        case .running, .completed:
            return .refuse(
                reason: "the workload has started here, and no cancel takes it back; migrate it back instead"
            )
        case .loaded, .granted, .acquiring, .committing, .starting, .undoing, .returning, .refused, .resigned:
            return .refuse(reason: "an incoming migration cannot be cancelled here; run migrate_cancel at its source")
        case .abandoned(_, let failure):
            return .refuse(reason: "\(failure); nothing is left to cancel")
        }
    }

    private var nothingToCancel: String { "no migration is under way here: the destination waits for a source" }

    /// Handles the operator's word that the source is gone for good: missing pages never arrive.
    ///
    /// The workload has executed here, so no source may resume it.
    package mutating func sourceIsGone() -> SourceGoneAnswer {
        switch current {
        case .running(let grant) where !isLinked:
            current = .abandoned(grant, .sourceGone)
            return .abandoned
        case .running:
            return .refuse(reason: "the link to the source stands: the source is not gone")
        case .abandoned(_, let failure):
            return .refuse(reason: "\(failure); nothing is left to do here")
        case .completed:
            return .refuse(reason: "every page is here: the workload needs no source")
        case .none, .awaiting, .resigned, .failed:
            return .refuse(reason: "no workload runs here, and no migration is under way: nothing is left to do here")
        case .loaded where isLinked, .granted where isLinked, .refused where isLinked, .acquiring, .committing,
            .starting, .undoing, .returning:
            return .refuse(
                reason:
                    "the workload has not run here, and its source may take it back; run migrate_cancel at its source"
            )
        case .preparing, .active, .listening, .loading, .loaded, .granted, .refused:
            return .refuse(reason: "the workload has not run here; run migrate_cancel")
        }
    }
}

/// The answer to `migrate_cancel` at the destination.
public enum DestinationCancelAnswer: Hashable, Sendable {
    /// Nothing comes here, or nothing any more: do this.
    case done([DestinationAction])
    /// The command fails with this reason.
    case refuse(reason: String)
}

extension DestinationMachine {
    /// `migrate_cancel`: the operator wants nothing of what is about to come.
    ///
    /// Before PONG nothing can start here, and the source resumes by itself. After PONG a RUN may be under way, and a source
    /// that is there decides. One that is gone finds, should it come again, the promise that nothing starts.
    public mutating func migrateCancel() -> DestinationCancelAnswer {
        let reason = SwitchoverFailure.cancelled.description
        switch current {
        case .none, .awaiting, .resigned(_, saidBye: true), .failed:
            return .done([])
        case .preparing:
            guard isLinked else { return .done([]) }
            isLinked = false
            return .done([.closeLink(reason: reason)])
        case .active, .listening, .loading:
            isLinked = false
            return .done([.closeLink(reason: reason)] + fail(.cancelled))
        case .loaded where !isLinked, .granted where !isLinked, .refused where !isLinked:
            var failure = SwitchoverFailure.cancelled
            if case .refused(_, let earlier, _) = current { failure = .startRefused(reason: earlier) }
            if case .granted(let grant) = current { refusals[grant.token] = reason }
            current = .resigned(failure, saidBye: false)
            isSourceGivenUp = true
            return .done(answerCont(failure: reason))
        case .loaded, .granted, .acquiring, .committing, .starting, .undoing, .returning, .refused, .running,
            .completed, .resigned:
            return .refuse(reason: "a workload comes here, or has come; cancel at its source")
        }
    }
}

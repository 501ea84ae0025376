package import Identity

/// The destination's side of a switchover as a value: the machine decides, its driver acts.
///
/// ``SourceMachine`` explains the words migration, workload, source, destination and promise.
///
/// Every event returns the actions for the driver, in order. One event changes ``state`` at most once, so a driver that
/// reads ``state`` after each event sees every state. The machine ignores the end of an operation that no state waits
/// for, and a message that arrives after the link was lost. Once RUN has arrived, a broken link does not change whether
/// the start happens: the source does not run without this side's promise or the lease.
package struct DestinationMachine: Hashable, Sendable {
    enum State: Hashable {
        /// No command was given. → awaiting
        case none
        /// The destination listens for a source's HELLO and REGIONS. → preparing
        case awaiting
        /// The driver maps memory for the regions. → active, awaiting
        case preparing
        /// READY was sent. → listening, failed
        case active
        /// LISTEN came, and faults are served. → loading, failed
        case listening(devicesCame: Bool)
        /// PING came, and the driver loads the devices. → loaded, failed
        case loading(ping: UInt64)
        /// PONG was sent: RUN may be under way, whether the link stands or not. → granted, acquiring, refused, resigned
        case loaded
        /// RUN came; with `--stopped`, the start waits for `cont`. → acquiring, refused, resigned
        case granted(RunGrant)
        /// The driver runs the hooks and takes the disk locks. → committing, starting, undoing
        case acquiring(RunGrant)
        /// The driver writes the lease's record. → starting, undoing
        case committing(RunGrant)
        /// The commit point is passed, and the workload may execute. → running, undoing
        case starting(RunGrant)
        /// The start failed or was cancelled, and nothing executed; the driver undoes what `acquire` did. → refused,
        /// returning, resigned
        case undoing(RunGrant, reason: String, isCommitted: Bool)
        /// The driver writes the lease's record back to the source. → refused, resigned
        case returning(RunGrant, reason: String)
        /// The source was promised that this token never starts. → granted, acquiring, resigned
        case refused(RunToken, reason: String, requested: Bool)
        /// The workload runs. Without a link, clients see postcopy-paused. → completed, abandoned
        case running(RunGrant)
        /// The workload runs, and every page is here. Final.
        case completed(RunGrant, saidBye: Bool)
        /// The source was promised that nothing starts here any more, and may have to be told again. → failed
        case resigned(SwitchoverFailure, saidBye: Bool)
        /// The workload had started and was ended: the operator says that the source is gone, so missing pages never
        /// arrive. Final.
        case abandoned(RunGrant, SwitchoverFailure)
        /// The workload never ran here, and the process exits with status 1. Final.
        case failed(SwitchoverFailure)
    }

    var current = State.none
    let startsStopped: Bool
    let usesLease: Bool
    /// Whether a link stands: true from an accepted HELLO until that link breaks or is closed.
    var isLinked = false
    /// Whether the source has rejoined and has not yet repeated RUN or sent CANCEL.
    var isRejoining = false
    var contWaits = false
    /// Whether CANCEL came for the start that is under way; the answer is sent when that start has ended.
    var isCancelAsked = false
    /// The grant whose lease record may still come to name this side, although the source was promised that nothing
    /// starts.
    ///
    /// CANCEL came while the record was being written or returned. The record must not keep naming this side.
    var strayLease: RunGrant?
    /// Why the link that carried PONG broke.
    var lostReason: SwitchoverFailure?
    /// Whether this side has stopped waiting for the source to hear that nothing starts here.
    ///
    /// A source that reconnects all the same is still answered.
    var isSourceGivenUp = false
    /// Why no start may begin here any more.
    var prohibition: String?
    /// Why the workload has ended by itself.
    var endReason: String?
    /// The exit of the process; nil before it was asked for.
    var exit: Exit?
    var completeCame = false
    var allResident = false
    /// The reason of each promise given, by token: this side's final answer about that token.
    var refusals: [RunToken: String] = [:]

    /// Makes the machine of a destination that has no workload yet.
    ///
    /// - Parameters:
    ///   - startsStopped: whether the start that RUN grants waits for `cont`.
    ///   - usesLease: whether winning the run lease is the commit point.
    package init(startsStopped: Bool = false, usesLease: Bool = false) {
        self.startsStopped = startsStopped
        self.usesLease = usesLease
    }

    /// The migration's state as clients see it.
    package var state: MigrationState {
        switch current {
        case .none: .none
        case .awaiting, .preparing: .setup
        case .active: .active
        case .resigned(let failure, _) where isSourceGivenUp && !failure.isRefusedStart:
            failure == .cancelled ? .cancelled : .failed
        case .listening, .loading, .loaded, .granted, .acquiring, .committing, .starting, .undoing, .returning,
            .refused, .resigned:
            .postcopyDevice
        case .running: isLinked ? (isRejoining ? .postcopyRecover : .postcopyActive) : .postcopyPaused
        case .completed: .completed
        case .abandoned: .failed
        case .failed(let failure): failure == .cancelled ? .cancelled : .failed
        }
    }

    /// Whether the commit point is passed, so that the workload may execute here.
    package var isCommitted: Bool {
        switch current {
        case .starting, .running, .completed: true
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing,
            .undoing, .returning, .refused, .resigned, .abandoned, .failed:
            false
        }
    }

    /// Whether the lease's record may still come to name this side, although the source was promised that nothing
    /// starts.
    ///
    /// The driver must not exit until the store has answered and the record is returned.
    package var owesLease: Bool { strayLease != nil }

    /// Whether the process may exit without losing anything that the source or the workload needs.
    package var mayLeave: Bool {
        if owesLease { return false }
        return switch current {
        case .none, .awaiting, .preparing, .active, .listening, .loading, .abandoned, .failed: true
        case .completed(_, let saidBye): saidBye
        case .resigned(_, let saidBye): saidBye || isSourceGivenUp
        case .loaded, .granted, .acquiring, .committing, .starting, .undoing, .returning, .refused, .running: false
        }
    }

    /// Whether no start can happen here any more, and the source has confirmed that with BYE, needs no promise, or is
    /// no longer waited for.
    package var hasGivenUp: Bool {
        switch current {
        case .failed, .resigned(_, saidBye: true): true
        case .resigned: isSourceGivenUp
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing,
            .starting, .undoing, .returning, .refused, .running, .completed, .abandoned:
            false
        }
    }

    /// Whether RUN has come and its start waits for `cont`.
    package var awaitsCont: Bool {
        if case .granted = current { return true }
        return false
    }

    /// Whether the source may be waiting for a promise that nothing starts here.
    package var owesPromise: Bool {
        switch current {
        case .loaded, .granted, .acquiring, .committing, .undoing, .returning, .refused: true
        case .resigned(_, saidBye: false): !isSourceGivenUp
        case .none, .awaiting, .preparing, .active, .listening, .loading, .starting, .running, .completed, .abandoned,
            .resigned, .failed:
            false
        }
    }

    /// Whether a source that reconnects may still need an answer about this migration.
    ///
    /// What is known of the migration is then kept until BYE, whatever the process does next.
    package var isRemembered: Bool {
        switch current {
        case .completed(_, saidBye: false), .resigned(_, saidBye: false): true
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing,
            .starting, .undoing, .returning, .refused, .running, .completed, .abandoned, .resigned, .failed:
            false
        }
    }

    /// Whether a start is being prepared or undone here, which ends by itself and is then reported to the source.
    package var isPreparingStart: Bool {
        switch current {
        case .acquiring, .committing, .undoing, .returning: true
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .starting, .refused,
            .running, .completed, .abandoned, .resigned, .failed:
            false
        }
    }

    /// Whether the source must reconnect to hear the promise that nothing starts here.
    ///
    /// Never with a lease: the source reads the outcome in the lease's record.
    package var awaitsSource: Bool { owesPromise && !usesLease && (!isLinked || isRejoining) }

    /// Why the workload does not start here, in one line; nil if nothing has failed.
    package var failureReason: String? {
        switch current {
        case .none, .awaiting, .preparing, .active, .listening, .loading, .granted, .acquiring, .committing, .starting,
            .running, .completed:
            nil
        case .loaded: lostReason?.description
        case .undoing(_, let reason, _), .returning(_, let reason), .refused(_, let reason, _):
            SwitchoverFailure.startRefused(reason: reason).description
        case .resigned(let failure, _), .abandoned(_, let failure), .failed(let failure): failure.description
        }
    }

    // MARK: Commands

    /// Handles `migrate-incoming`: listens for a source.
    package mutating func migrateIncoming() -> MigrateIncomingAnswer {
        guard case .none = current else {
            return .refuse(reason: "a migration was begun before; its state is \(state.rawValue)")
        }
        current = .awaiting
        return .listen
    }

    /// Handles `cont`: starts the workload, or waits until a start is possible.
    package mutating func cont() -> ContAnswer {
        switch current {
        case .none:
            return .failed(reason: "there is nothing to start; run migrate-incoming first")
        case .loaded where !isLinked:
            return .failed(reason: failureReason ?? "")
        case .awaiting, .preparing, .active, .listening, .loading, .loaded, .acquiring, .committing, .starting,
            .undoing, .returning:
            contWaits = true
            return .waits
        case .granted(let grant):
            contWaits = true
            current = .acquiring(grant)
            return .acquire(grant)
        case .refused(let token, let reason, let requested):
            if let prohibition { return .failed(reason: "cannot start the workload: \(prohibition)") }
            guard isLinked else {
                return .failed(reason: "cannot start the workload: \(reason); the link to ask the source again is gone")
            }
            contWaits = true
            current = .refused(token, reason: reason, requested: true)
            // A source that has just rejoined learns of the refusal first.
            return requested || isRejoining ? .waits : .requestStart
        case .running, .completed:
            return endReason.map { .failed(reason: $0) } ?? .succeeded
        case .resigned(let failure, _):
            return .failed(reason: "\(failure); the source has taken the workload back")
        case .abandoned(_, let failure), .failed(let failure):
            return .failed(reason: failure.description)
        }
    }

    /// Prohibits every later start, since the process exits or the workload that has arrived cannot run.
    ///
    /// A start past its commit point continues. An earlier start is undone, and the source is promised that it never
    /// happens.
    package mutating func prohibitStart(reason: String) -> [DestinationAction] {
        prohibition = prohibition ?? reason
        guard case .granted(let grant) = current else { return [] }
        return refuse(grant, reason: reason)
    }

    /// Handles the end of a workload that nobody has asked to end.
    package mutating func workloadEnded(reason: String) {
        endReason = endReason ?? reason
    }

    /// Continues after ``DestinationAction/proceed``.
    package mutating func proceed() -> [DestinationAction] {
        completeIfDue()
    }

    /// The token of the RUN that started the workload here; nil if none did.
    package var startedToken: RunToken? {
        switch current {
        case .running(let grant), .completed(let grant, _), .abandoned(let grant, _): grant.token
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing,
            .starting, .undoing, .returning, .refused, .resigned, .failed:
            nil
        }
    }

    /// Stops waiting for the source to reconnect and hear again that nothing starts here.
    package mutating func sourceGivenUp() {
        guard !isLinked, strayLease == nil, case .resigned(_, saidBye: false) = current else { return }
        isSourceGivenUp = true
    }

    /// Whether the driver must call ``sourceGivenUp()`` some time after the link has broken.
    package var awaitsBye: Bool {
        if case .resigned(_, saidBye: false) = current { return !isSourceGivenUp }
        return false
    }

    /// Ends a migration whose source knows, as far as that can be known, that nothing starts here.
    mutating func settle(_ failure: SwitchoverFailure) -> [DestinationAction] {
        current = .resigned(failure, saidBye: true)
        // After a refused start, clients keep seeing the state in which it was refused, with the reason.
        if case .startRefused = failure { return [] }
        return fail(failure)
    }

    // MARK: The link

    /// Handles a broken control link.
    package mutating func linkLost(reason: String) -> [DestinationAction] {
        isLinked ? lose(.linkLost(reason: reason)) : []
    }

    /// Handles a control link that either side has ended, as a broken link.
    ///
    /// - Parameter reason: a sentence of its own.
    package mutating func linkEnded(reason: String) -> [DestinationAction] {
        isLinked ? lose(.linkEnded(reason: reason)) : []
    }

    mutating func violation(_ what: String) -> [DestinationAction] {
        [.violation(what)] + lose(.violation(what))
    }

    mutating func lose(_ failure: SwitchoverFailure) -> [DestinationAction] {
        isLinked = false
        isRejoining = false
        switch current {
        case .none, .awaiting, .preparing:
            // The source was not accepted yet, so the expected source may still connect.
            return []
        case .active, .listening, .loading:
            // The source sends RUN only after PONG, so nothing can start here any more.
            return fail(failure)
        case .loaded:
            // RUN may have been lost with the link. The source reconnects and repeats RUN, or sends CANCEL.
            lostReason = failure
            return answerCont(failure: failure.description)
        case .refused(let token, let reason, _):
            current = .refused(token, reason: reason, requested: false)
            return answerCont(failure: "cannot start the workload: \(reason); \(failure)")
        case .running:
            return completeIfDue()
        case .granted, .acquiring, .committing, .starting, .undoing, .returning, .completed, .abandoned, .resigned,
            .failed:
            return []
        }
    }

    mutating func fail(_ failure: SwitchoverFailure) -> [DestinationAction] {
        current = .failed(failure)
        return answerCont(failure: failure.description)
    }

    /// Promises that nothing starts here any more, whatever RUN may still arrive.
    mutating func resign(_ token: RunToken) -> [DestinationAction] {
        var failure = lostReason ?? .cancelled
        // Token 0 names no RUN: the source cancels, instead of answering the refusal.
        if case .refused(_, let reason, _) = current, token != RunToken.none { failure = .startRefused(reason: reason) }
        if case .resigned(let earlier, _) = current { failure = earlier }
        refusals[token] = refusals[token] ?? failure.description
        isCancelAsked = false
        current = .resigned(failure, saidBye: false)
        return (isLinked ? [.send(.cancelled(token))] : [])
            + answerCont(failure: "\(failure); the source has taken the workload back")
    }

    mutating func answerCont(failure: String?) -> [DestinationAction] {
        guard contWaits else { return [] }
        contWaits = false
        if let failure { return [.contFailed(reason: failure)] }
        return [.contSucceeded]
    }
}

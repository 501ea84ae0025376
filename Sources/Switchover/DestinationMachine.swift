/// The destination's side of a switchover as a value: it decides, its driver acts.
///
/// Every event returns what is to be done, in order. The machine passes at most one ``MigrationState`` per event, so
/// that a driver which reads ``state`` after each event sees them all. The end of an operation that nothing waits for
/// is ignored, as is a message after the link was lost. Once RUN was received the link decides nothing about the start:
/// the source does not run without this side's promise or the lease.
public struct DestinationMachine: Hashable, Sendable {
    enum State: Hashable {
        /// Nothing was asked. → awaiting
        case none
        /// Waits for a source's HELLO and REGIONS. → preparing
        case awaiting
        /// Memory for the regions is being prepared. → active, awaiting
        case preparing
        /// READY was sent. → listening, failed
        case active
        /// LISTEN came: faults are served. → loading, failed
        case listening(devicesCame: Bool)
        /// PING came: devices are being loaded. → loaded, failed
        case loading(ping: UInt64)
        /// PONG was sent: a RUN may be under way, whatever the link does. → granted, acquiring, resigned
        case loaded
        /// RUN came; with `--stopped` the start waits for `cont`. → acquiring, resigned
        case granted(RunGrant)
        /// Hooks run, disk locks are being taken. → committing, starting, undoing
        case acquiring(RunGrant)
        /// The lease's record is being written. → starting, undoing
        case committing(RunGrant)
        /// Past the commit point: the workload may execute. → running, undoing
        case starting(RunGrant)
        /// The start failed with nothing executed; what `acquire` did is being undone. → refused, returning, resigned
        case undoing(RunGrant, reason: String, isCommitted: Bool)
        /// The lease's record is being given back to the source. → refused, resigned
        case returning(RunGrant, reason: String)
        /// It was promised that this token never starts. → granted, acquiring, resigned
        case refused(RunToken, reason: String, requested: Bool)
        /// The workload runs; without a link that is postcopy-paused. → completed
        case running(RunGrant)
        /// The workload runs and every page is here. An end.
        case completed(RunGrant, saidBye: Bool)
        /// It was promised that nothing starts here any more; the source may have to hear that again. → failed
        case resigned(SwitchoverFailure, saidBye: Bool)
        /// The workload never ran here. An end: the process leaves with status 1.
        case failed(SwitchoverFailure)
    }

    var current = State.none
    let startsStopped: Bool
    let usesLease: Bool
    /// From an accepted HELLO on, until the link breaks or is closed.
    var isLinked = false
    /// A link has rejoined and RUN was not yet repeated over it.
    var isRejoining = false
    var contWaits = false
    /// CANCEL came for the start that is under way: it is answered when that has ended.
    var isCancelAsked = false
    /// CANCEL came while the lease's record for this start was being written, or given back: it must not stay this side's.
    var strayLease: RunGrant?
    /// Why the link broke that PONG went over.
    var lostReason: SwitchoverFailure?
    /// The source has not come to hear that the workload was given up here, and is waited for no longer. Should it come all
    /// the same, it is answered.
    var isSourceGivenUp = false
    /// Why no start may begin here any more.
    var prohibition: String?
    /// Why the workload has ended in the midst of its start.
    var endReason: String?
    var completeCame = false
    var allResident = false
    /// Each promise that was given, with its reason: the last word on that token.
    var refusals: [RunToken: String] = [:]

    /// Makes the machine of an empty destination.
    ///
    /// With `startsStopped`, RUN grants the start and `cont` does it. With `usesLease`, winning the lease is the commit
    /// point.
    public init(startsStopped: Bool = false, usesLease: Bool = false) {
        self.startsStopped = startsStopped
        self.usesLease = usesLease
    }

    /// What clients see.
    public var state: MigrationState {
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
        case .failed(let failure): failure == .cancelled ? .cancelled : .failed
        }
    }

    /// Whether the workload may execute here: the commit point is passed.
    public var isCommitted: Bool {
        switch current {
        case .starting, .running, .completed: true
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing,
            .undoing, .returning, .refused, .resigned, .failed:
            false
        }
    }

    /// Whether the lease's record may still come to name this side although the source was promised that nothing starts:
    /// until the store has answered, and the record is given back, this machine's driver stays.
    public var owesLease: Bool { strayLease != nil }

    /// Whether the process may end without taking something with it that the source or the workload needs.
    public var mayLeave: Bool {
        if owesLease { return false }
        return switch current {
        case .none, .awaiting, .preparing, .active, .listening, .loading, .failed: true
        case .completed(_, let saidBye): saidBye
        case .resigned(_, let saidBye): saidBye || isSourceGivenUp
        case .loaded, .granted, .acquiring, .committing, .starting, .undoing, .returning, .refused, .running: false
        }
    }

    /// Whether the migration has failed here, and the source knows or need not know.
    public var hasGivenUp: Bool {
        switch current {
        case .failed, .resigned(_, saidBye: true): true
        case .resigned: isSourceGivenUp
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing,
            .starting, .undoing, .returning, .refused, .running, .completed:
            false
        }
    }

    /// Whether a RUN came that waits for `cont`.
    public var awaitsCont: Bool {
        if case .granted = current { return true }
        return false
    }

    /// Whether the source may wait for a promise that nothing starts here.
    public var owesPromise: Bool {
        switch current {
        case .loaded, .granted, .acquiring, .committing, .undoing, .returning, .refused: true
        case .resigned(_, saidBye: false): !isSourceGivenUp
        case .none, .awaiting, .preparing, .active, .listening, .loading, .starting, .running, .completed, .resigned,
            .failed:
            false
        }
    }

    /// Whether a source that comes again is told something that it may need: for that, what is known of this migration is
    /// kept until the source has said BYE, whatever the process does next.
    public var isRemembered: Bool {
        switch current {
        case .completed(_, saidBye: false), .resigned(_, saidBye: false): true
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing,
            .starting, .undoing, .returning, .refused, .running, .completed, .resigned, .failed:
            false
        }
    }

    /// Whether a start is being prepared, or undone, here: that ends by itself, and what it comes to is told.
    public var isPreparingStart: Bool {
        switch current {
        case .acquiring, .committing, .undoing, .returning: true
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .starting, .refused,
            .running, .completed, .resigned, .failed:
            false
        }
    }

    /// Whether the source is to come again, over a link that is not there yet, to hear that promise. A lease tells it too.
    public var awaitsSource: Bool { owesPromise && !usesLease && (!isLinked || isRejoining) }

    /// Why the workload does not start here, in one line; nil if nothing has failed.
    public var failureReason: String? {
        switch current {
        case .none, .awaiting, .preparing, .active, .listening, .loading, .granted, .acquiring, .committing, .starting,
            .running, .completed:
            nil
        case .loaded: lostReason?.description
        case .undoing(_, let reason, _), .returning(_, let reason), .refused(_, let reason, _):
            SwitchoverFailure.startRefused(reason: reason).description
        case .resigned(let failure, _), .failed(let failure): failure.description
        }
    }

    // MARK: Commands

    /// `migrate-incoming`: wait for a source.
    public mutating func migrateIncoming() -> MigrateIncomingAnswer {
        guard case .none = current else {
            return .refuse(reason: "a migration was begun before, it is \(state.rawValue)")
        }
        current = .awaiting
        return .listen
    }

    /// `cont`: start the workload, or wait until that is possible.
    public mutating func cont() -> ContAnswer {
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
            // A source that has just rejoined hears of the refusal first.
            return requested || isRejoining ? .waits : .requestStart
        case .running, .completed:
            return endReason.map { .failed(reason: $0) } ?? .succeeded
        case .resigned(let failure, _):
            return .failed(reason: "\(failure); the source has taken the workload back")
        case .failed(let failure):
            return .failed(reason: failure.description)
        }
    }

    /// Nothing may start here from now on: the process ends, or what has come cannot run.
    ///
    /// A start that is past its commit point is not held up. One before is undone, and the source is promised that it
    /// never happens.
    public mutating func prohibitStart(reason: String) -> [DestinationAction] {
        prohibition = prohibition ?? reason
        guard case .granted(let grant) = current else { return [] }
        return refuse(grant, reason: reason)
    }

    /// Goes on after ``DestinationAction/proceed``.
    public mutating func proceed() -> [DestinationAction] {
        completeIfDue()
    }

    /// The token by which the workload was started here; nil if it was not.
    public var startedToken: RunToken? {
        switch current {
        case .running(let grant), .completed(let grant, _): grant.token
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .committing,
            .starting, .undoing, .returning, .refused, .resigned, .failed:
            nil
        }
    }

    /// The source did not come to hear again that the workload was given up here; it is waited for no longer.
    public mutating func sourceGivenUp() {
        guard !isLinked, strayLease == nil, case .resigned(_, saidBye: false) = current else { return }
        isSourceGivenUp = true
    }

    /// Whether ``sourceGivenUp()`` is to be told some time after the link has broken.
    public var awaitsBye: Bool {
        if case .resigned(_, saidBye: false) = current { return !isSourceGivenUp }
        return false
    }

    /// The source knows, as far as that can be, that nothing starts here.
    mutating func settle(_ failure: SwitchoverFailure) -> [DestinationAction] {
        current = .resigned(failure, saidBye: true)
        // After a refused start, clients go on to see the state in which it was refused, with the reason.
        if case .startRefused = failure { return [] }
        return fail(failure)
    }

    // MARK: The link

    /// The control link broke.
    public mutating func linkLost(reason: String) -> [DestinationAction] {
        isLinked ? lose(.linkLost(reason: reason)) : []
    }

    mutating func violation(_ what: String) -> [DestinationAction] {
        [.violation(what)] + lose(.violation(what))
    }

    mutating func lose(_ failure: SwitchoverFailure) -> [DestinationAction] {
        isLinked = false
        isRejoining = false
        switch current {
        case .none, .awaiting, .preparing:
            // Whoever came has not been accepted: the source that is meant may still come.
            return []
        case .active, .listening, .loading:
            // RUN is sent only after PONG, so nothing can start here any more.
            return fail(failure)
        case .loaded:
            // RUN may have been sent and lost with the link: the source comes again with it, or with a CANCEL.
            lostReason = failure
            return answerCont(failure: failure.description)
        case .refused(let token, let reason, _):
            current = .refused(token, reason: reason, requested: false)
            return answerCont(failure: "cannot start the workload: \(reason); \(failure)")
        case .running:
            return completeIfDue()
        case .granted, .acquiring, .committing, .starting, .undoing, .returning, .completed, .resigned, .failed:
            return []
        }
    }

    mutating func fail(_ failure: SwitchoverFailure) -> [DestinationAction] {
        current = .failed(failure)
        return answerCont(failure: failure.description)
    }

    /// Promises that nothing starts here any more, whatever RUN may still come.
    mutating func resign(_ token: RunToken) -> [DestinationAction] {
        var failure = lostReason ?? .cancelled
        if case .refused(_, let reason, _) = current { failure = .startRefused(reason: reason) }
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

/// The destination's side of a switchover as a value: it decides, its driver acts.
///
/// Every event returns what is to be done, in order. The machine passes at most one ``MigrationState`` per event, so
/// that a driver which reads ``state`` after each event sees them all. The end of an operation that nothing waits for
/// is ignored, as is a message after the link was lost. Once RUN was received the link decides nothing about the start:
/// the source does not run without this side's promise.
public struct DestinationMachine: Hashable, Sendable {
    private enum State: Hashable {
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
        /// PONG was sent: the source may send RUN at any time. → granted, acquiring, failed
        case loaded
        /// RUN came; with `--stopped` the start waits for `cont`. → acquiring
        case granted(RunGrant)
        /// Hooks run, disk locks are being taken. → starting, undoing
        case acquiring(RunGrant)
        /// Past the commit point: the workload may execute. → running, undoing
        case starting(RunGrant)
        /// The start failed with nothing executed; what `acquire` did is being undone. → refused
        case undoing(RunGrant, reason: String)
        /// It was promised that this token never starts. → granted, acquiring
        case refused(RunToken, reason: String, requested: Bool)
        /// The workload runs; without a link that is postcopy-paused. → completed
        case running(RunGrant)
        /// The workload runs and every page is here. An end.
        case completed(RunGrant, saidBye: Bool)
        /// The workload never ran here. An end: the process leaves with status 1.
        case failed(SwitchoverFailure)
    }

    private var current = State.none
    private let startsStopped: Bool
    /// From an accepted HELLO on, until the link breaks or is closed.
    private var isLinked = false
    private var contWaits = false
    private var completeCame = false
    private var allResident = false
    /// Each promise that was given, with its reason: the last word on that token.
    private var refusals: [RunToken: String] = [:]

    /// Makes the machine of an empty destination.
    ///
    /// With `startsStopped`, RUN grants the start and `cont` does it.
    public init(startsStopped: Bool = false) {
        self.startsStopped = startsStopped
    }

    /// What clients see.
    public var state: MigrationState {
        switch current {
        case .none: .none
        case .awaiting, .preparing: .setup
        case .active: .active
        case .listening, .loading, .loaded, .granted, .acquiring, .starting, .undoing, .refused: .postcopyDevice
        case .running: isLinked ? .postcopyActive : .postcopyPaused
        case .completed: .completed
        case .failed: .failed
        }
    }

    /// Whether the workload may execute here: the commit point is passed.
    public var isCommitted: Bool {
        switch current {
        case .starting, .running, .completed: true
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .undoing,
            .refused, .failed:
            false
        }
    }

    /// Whether the process may end without taking something with it that the source or the workload needs.
    public var mayLeave: Bool {
        switch current {
        case .none, .awaiting, .preparing, .active, .listening, .loading, .failed: true
        case .completed(_, let saidBye): saidBye
        case .loaded, .granted, .acquiring, .starting, .undoing, .refused, .running: false
        }
    }

    /// Why the workload does not start here, in one line; nil if nothing has failed.
    public var failureReason: String? {
        switch current {
        case .none, .awaiting, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .starting,
            .running, .completed:
            nil
        case .undoing(_, let reason), .refused(_, let reason, _): "cannot start the workload: \(reason)"
        case .failed(let failure): failure.description
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
        case .awaiting, .preparing, .active, .listening, .loading, .loaded, .acquiring, .starting, .undoing:
            contWaits = true
            return .waits
        case .granted(let grant):
            contWaits = true
            current = .acquiring(grant)
            return .acquire(grant)
        case .refused(let token, let reason, let requested):
            guard isLinked else {
                return .failed(reason: "cannot start the workload: \(reason); the link to ask the source again is gone")
            }
            contWaits = true
            current = .refused(token, reason: reason, requested: true)
            return requested ? .waits : .requestStart
        case .running, .completed:
            return .succeeded
        case .failed(let failure):
            return .failed(reason: failure.description)
        }
    }

    /// Goes on after ``DestinationAction/proceed``.
    public mutating func proceed() -> [DestinationAction] {
        completeIfDue()
    }

    // MARK: The link

    /// The control link broke.
    public mutating func linkLost(reason: String) -> [DestinationAction] {
        isLinked ? lose(.linkLost(reason: reason)) : []
    }

    private mutating func violation(_ what: String) -> [DestinationAction] {
        [.violation(what)] + lose(.violation(what))
    }

    private mutating func lose(_ failure: SwitchoverFailure) -> [DestinationAction] {
        isLinked = false
        switch current {
        case .none, .awaiting, .preparing:
            // Whoever came has not been accepted: the source that is meant may still come.
            return []
        case .active, .listening, .loading, .loaded:
            // A RUN that was under way is lost with its link, so nothing can start here any more.
            return fail(failure)
        case .refused(let token, let reason, _):
            current = .refused(token, reason: reason, requested: false)
            return answerCont(failure: "cannot start the workload: \(reason); \(failure)")
        case .running:
            return completeIfDue()
        case .granted, .acquiring, .starting, .undoing, .completed, .failed:
            return []
        }
    }

    private mutating func fail(_ failure: SwitchoverFailure) -> [DestinationAction] {
        current = .failed(failure)
        return answerCont(failure: failure.description)
    }

    private mutating func answerCont(failure: String?) -> [DestinationAction] {
        guard contWaits else { return [] }
        contWaits = false
        if let failure { return [.contFailed(reason: failure)] }
        return [.contSucceeded]
    }

    // MARK: Ends of operations

    /// The memory for all regions is there.
    public mutating func memoryPrepared() -> [DestinationAction] {
        guard case .preparing = current else { return [] }
        current = isLinked ? .active : .awaiting
        return isLinked ? [.send(.ready)] : [.discardMemory]
    }

    /// The regions cannot be had here.
    ///
    /// Another source may still come.
    public mutating func memoryRefused(reason: String) -> [DestinationAction] {
        guard case .preparing = current else { return [] }
        current = .awaiting
        guard isLinked else { return [] }
        isLinked = false
        return [.send(.refused(reason: reason)), .closeLink(reason: reason)]
    }

    /// The state of every device has loaded.
    public mutating func devicesLoaded() -> [DestinationAction] {
        guard case .loading(let ping) = current else { return [] }
        current = .loaded
        return [.send(.pong(ping))]
    }

    /// A device did not load.
    public mutating func deviceLoadFailed(device: String, reason: String) -> [DestinationAction] {
        guard case .loading = current else { return [] }
        isLinked = false
        return [.send(.devicesFailed(device: device, reason: reason)), .closeLink(reason: reason)]
            + fail(.loadFailed(device: device, reason: reason))
    }

    /// Hooks and disk locks are done.
    ///
    /// The commit point is passed here.
    public mutating func acquired() -> [DestinationAction] {
        guard case .acquiring(let grant) = current else { return [] }
        current = .starting(grant)
        return [.start(grant)]
    }

    /// A hook failed or a disk lock could not be taken.
    public mutating func acquireFailed(reason: String) -> [DestinationAction] {
        guard case .acquiring(let grant) = current else { return [] }
        current = .undoing(grant, reason: reason)
        return [.undo(grant)]
    }

    /// The workload runs.
    public mutating func started() -> [DestinationAction] {
        guard case .starting(let grant) = current else { return [] }
        current = .running(grant)
        return (isLinked ? [.send(.running(grant.token))] : [])
            + answerCont(failure: nil)
            + (isCompletionDue ? [.proceed] : [])
    }

    /// The start failed and provably executed nothing.
    public mutating func startFailed(reason: String) -> [DestinationAction] {
        guard case .starting(let grant) = current else { return [] }
        current = .undoing(grant, reason: reason)
        return [.undo(grant)]
    }

    /// What `acquire` did is undone: the promise that this token never starts can be given.
    public mutating func undone() -> [DestinationAction] {
        guard case .undoing(let grant, let reason) = current else { return [] }
        refusals[grant.token] = reason
        current = .refused(grant.token, reason: reason, requested: false)
        return (isLinked ? [.send(.startFailed(grant.token, reason: reason))] : [])
            + answerCont(failure: "cannot start the workload: \(reason)")
    }

    /// Every page of every region was placed.
    public mutating func allPagesResident() -> [DestinationAction] {
        allResident = true
        return completeIfDue()
    }

    private var isCompletionDue: Bool {
        guard case .running = current else { return false }
        return allResident && (completeCame || !isLinked)
    }

    private mutating func completeIfDue() -> [DestinationAction] {
        guard isCompletionDue, case .running(let grant) = current else { return [] }
        current = .completed(grant, saidBye: false)
        return isLinked ? [.send(.completeAck)] : []
    }

    // MARK: Messages

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
        case .none, .preparing, .active, .listening, .loading, .loaded, .granted, .acquiring, .starting, .undoing,
            .refused, .running, .completed, .failed:
            return [.violation("HELLO where no migration is awaited")]
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
        if let reason = refusals[grant.token] { return [.send(.startFailed(grant.token, reason: reason))] }
        switch current {
        case .loaded, .refused:
            if startsStopped && !contWaits {
                current = .granted(grant)
                return []
            }
            current = .acquiring(grant)
            return [.acquire(grant)]
        case .granted(grant), .acquiring(grant), .starting(grant), .undoing(grant, _):
            return []
        case .running(grant), .completed(grant, _):
            return [.send(.running(grant.token))]
        case .granted, .acquiring, .starting, .undoing, .running, .completed:
            return violation("RUN while another RUN decides")
        case .none, .awaiting, .preparing, .active, .listening, .loading:
            return violation("RUN before PONG was sent")
        case .failed:
            return []
        }
    }

    /// COMPLETE: the source has sent every page.
    public mutating func complete() -> [DestinationAction] {
        guard isLinked else { return [] }
        switch current {
        case .listening, .loading, .loaded, .granted, .acquiring, .starting, .undoing, .refused, .running:
            completeCame = true
            return completeIfDue()
        case .none, .awaiting, .preparing, .active, .completed:
            return violation("COMPLETE out of order")
        case .failed:
            return []
        }
    }

    /// BYE: the source is done.
    public mutating func bye() -> [DestinationAction] {
        guard isLinked else { return [] }
        guard case .completed(let grant, _) = current else { return violation("BYE before COMPLETE_ACK") }
        current = .completed(grant, saidBye: true)
        isLinked = false
        return [.closeLink(reason: "the migration is complete")]
    }
}

/// The source's side of a switchover as a value: it decides, its driver acts.
///
/// Every event returns what is to be done, in order. The machine passes at most one ``MigrationState`` per event, so
/// that a driver which reads ``state`` after each event sees them all. The end of an operation that nothing waits for
/// is ignored, as is a message after the link was lost.
public struct SourceMachine: Hashable, Sendable {
    private enum State: Hashable {
        /// The workload runs and nothing was asked. → setup
        case none
        /// The link is being made and the destination asked. → active, failed
        case setup(startAsked: Bool)
        /// READY came; the workload runs on. → stopping, failed
        case active(startAsked: Bool)
        /// The workload is being stopped; a failure that came meanwhile waits for that to end. → saving, takingBack
        case stopping(SwitchoverFailure?)
        /// Devices are being saved; a failure that came meanwhile waits for that to end. → awaitingPong, takingBack
        case saving(SwitchoverFailure?)
        /// The devices' state was sent with this PING. → releasing, takingBack
        case awaitingPong(ping: UInt64)
        /// PONG came, the disk locks are being released; a failure waits for that to end. → granted, takingBack
        case releasing(SwitchoverFailure?)
        /// RUN was sent: only a promise brings the workload back. → running, refused, takingBack, paused
        case granted(RunGrant)
        /// The promise came that this token never starts; the destination may ask again. → granted, takingBack
        case refused(RunToken, reason: String)
        /// RUNNING came. → completed, paused
        case running(RunGrant)
        /// The link broke after RUN; the workload stays stopped here. No way out without a new link.
        case paused(RunGrant, started: Bool, SwitchoverFailure)
        /// The workload is being resumed; clients see the state that failed until it is. → failed, held
        case takingBack(SwitchoverFailure, seenAs: MigrationState)
        /// The resume failed, the workload stays stopped. → takingBack
        case held(SwitchoverFailure, reason: String)
        /// The workload runs here. An end.
        case failed(SwitchoverFailure)
        /// The workload and its memory are the destination's. An end.
        case completed
    }

    private var current = State.none
    private let refusalPolicy: StartRefusalPolicy
    /// From `migrate` on, until the link breaks or is closed.
    private var isLinked = false
    /// The instance that sent READY; answers count from no other.
    private var peer: InstanceID?
    private var pagesSent = false
    private var completeSent = false

    /// Makes the machine of a source whose workload runs.
    public init(afterStartRefusal refusalPolicy: StartRefusalPolicy = .takeBack) {
        self.refusalPolicy = refusalPolicy
    }

    /// What clients see.
    public var state: MigrationState {
        switch current {
        case .none: .none
        case .setup: .setup
        case .active, .stopping: .active
        case .saving: .device
        case .awaitingPong, .releasing: .postcopyDevice
        case .granted, .refused, .running: .postcopyActive
        case .paused: .postcopyPaused
        case .takingBack(_, let seenAs): seenAs
        case .held, .failed: .failed
        case .completed: .completed
        }
    }

    /// Whether the workload runs here or can be brought back without asking the destination anything more.
    public var isTakeBackPossible: Bool {
        switch current {
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .refused, .takingBack, .held,
            .failed:
            true
        case .granted, .running, .paused, .completed: false
        }
    }

    /// Whether the workload is meant to run here now.
    ///
    /// While it is being stopped or resumed it is not.
    public var isWorkloadHere: Bool {
        switch current {
        case .none, .setup, .active, .failed: true
        case .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .running, .paused, .takingBack, .held,
            .completed:
            false
        }
    }

    /// Why the migration failed or stands still, in one line; nil while it goes on.
    public var failureReason: String? {
        switch current {
        case .none, .setup, .active, .awaitingPong, .granted, .running, .completed: nil
        case .stopping(let failure), .saving(let failure), .releasing(let failure): failure?.description
        case .refused(_, let reason): SwitchoverFailure.startRefused(reason: reason).description
        case .paused(_, started: true, let failure): "\(failure); the workload runs on the destination"
        case .paused(_, started: false, let failure): "\(failure); RUN was sent, whether the workload runs is unknown"
        case .takingBack(let failure, _), .failed(let failure): failure.description
        case .held(let failure, let reason): "\(failure); the workload stays stopped, it cannot resume: \(reason)"
        }
    }

    // MARK: Commands

    /// `migrate`: look for the destination.
    public mutating func migrate() -> MigrateAnswer {
        guard case .none = current else {
            return .refuse(reason: "a migration was begun before, it is \(state.rawValue)")
        }
        current = .setup(startAsked: false)
        isLinked = true
        return .connect
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
        case .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .running, .paused, .takingBack, .held,
            .failed, .completed:
            return .refuse(reason: "the switchover was begun before, the migration is \(state.rawValue)")
        }
    }

    /// Asks a source that stays stopped because it could not resume to try again.
    public mutating func retryResume() -> RetryResumeAnswer {
        guard case .held(let failure, _) = current else {
            return .refuse(reason: "no resume has failed here, the migration is \(state.rawValue)")
        }
        current = .takingBack(failure, seenAs: .failed)
        return .resume
    }

    /// Goes on after ``SourceAction/proceed``.
    public mutating func proceed() -> [SourceAction] {
        guard case .active(startAsked: true) = current else { return [] }
        current = .stopping(nil)
        return [.stop]
    }

    // MARK: The link

    /// The control link stands.
    public mutating func linkUp() -> [SourceAction] {
        guard isLinked, case .setup = current else { return [] }
        return [.send(.hello)]
    }

    /// The control link broke, or could not be made.
    public mutating func linkLost(reason: String) -> [SourceAction] {
        isLinked ? lose(.linkLost(reason: reason)) : []
    }

    private mutating func violation(_ what: String) -> [SourceAction] {
        [.violation(what)] + lose(.violation(what))
    }

    /// Before RUN the workload is taken back as soon as the operation under way ends; after RUN it stays stopped.
    private mutating func lose(_ failure: SwitchoverFailure) -> [SourceAction] {
        isLinked = false
        switch current {
        case .setup, .active: current = .failed(failure)
        case .stopping(let earlier): current = .stopping(earlier ?? failure)
        case .saving(let earlier): current = .saving(earlier ?? failure)
        case .awaitingPong: return takeBack(failure)
        case .releasing(let earlier): current = .releasing(earlier ?? failure)
        case .granted(let grant): current = .paused(grant, started: false, failure)
        case .refused(_, let reason): return takeBack(.startRefused(reason: reason))
        case .running(let grant): current = .paused(grant, started: true, failure)
        case .none, .paused, .takingBack, .held, .failed, .completed: break
        }
        return []
    }

    private mutating func takeBack(_ failure: SwitchoverFailure) -> [SourceAction] {
        current = .takingBack(failure, seenAs: state)
        return [.resume]
    }

    // MARK: Ends of operations

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
        current = .granted(grant)
        return [.send(.run(grant))]
    }

    /// The disk locks could not be released.
    public mutating func releaseFailed(reason: String) -> [SourceAction] {
        guard case .releasing(let failure) = current else { return [] }
        return takeBack(failure ?? .releaseFailed(reason: reason))
    }

    /// The workload runs here again.
    public mutating func resumed() -> [SourceAction] {
        guard case .takingBack(let failure, _) = current else { return [] }
        current = .failed(failure)
        return endLink(failure.description)
    }

    /// The workload could not be resumed, as its disk locks could not be taken.
    ///
    /// It stays stopped.
    public mutating func resumeFailed(reason: String) -> [SourceAction] {
        guard case .takingBack(let failure, _) = current else { return [] }
        current = .held(failure, reason: reason)
        return endLink(failure.description)
    }

    private mutating func endLink(_ reason: String) -> [SourceAction] {
        guard isLinked else { return [] }
        isLinked = false
        return [.closeLink(reason: reason)]
    }

    /// Every page was sent at least once.
    public mutating func allPagesSent() -> [SourceAction] {
        pagesSent = true
        return completeOnce()
    }

    private mutating func completeOnce() -> [SourceAction] {
        guard isLinked, pagesSent, !completeSent else { return [] }
        switch current {
        case .awaitingPong, .releasing, .granted, .refused, .running:
            completeSent = true
            return [.send(.complete)]
        case .none, .setup, .active, .stopping, .saving, .paused, .takingBack, .held, .failed, .completed:
            return []
        }
    }

    // MARK: Messages

    /// READY, from the instance that HELLO named.
    public mutating func ready(from instance: InstanceID) -> [SourceAction] {
        guard isLinked else { return [] }
        guard case .setup(let startAsked) = current else { return violation("READY after the setup") }
        peer = instance
        current = .active(startAsked: startAsked)
        return startAsked ? [.proceed] : []
    }

    /// REFUSED: the destination does not take the migration.
    public mutating func refused(reason: String) -> [SourceAction] {
        guard isLinked else { return [] }
        guard case .setup = current else { return violation("REFUSED after the setup") }
        current = .failed(.refused(reason: reason))
        return endLink("refused")
    }

    /// PONG: all devices have loaded on the destination.
    public mutating func pong(_ number: UInt64, from instance: InstanceID) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .awaitingPong(number) where instance == peer:
            current = .releasing(nil)
            return [.releaseLocks]
        case .awaitingPong:
            return violation("PONG \(number) answers no PING of this switchover, or comes from another instance")
        case .none, .setup, .active, .stopping, .saving, .releasing, .granted, .refused, .running, .paused:
            return violation("PONG without a PING")
        case .takingBack, .held, .failed, .completed:
            return []
        }
    }

    /// DEVICES_FAILED: a device did not load.
    public mutating func devicesFailed(device: String, reason: String) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .awaitingPong:
            return takeBack(.loadFailed(device: device, reason: reason))
        case .none, .setup, .active, .stopping, .saving, .releasing, .granted, .refused, .running, .paused:
            return violation("DEVICES_FAILED where no device is being loaded")
        case .takingBack, .held, .failed, .completed:
            return []
        }
    }

    /// RUNNING: the destination has started the workload.
    public mutating func running(_ token: RunToken, from instance: InstanceID) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .granted(let grant) where grant.token == token && instance == peer:
            current = .running(grant)
            return []
        case .running(let grant) where grant.token == token && instance == peer:
            return []
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .running,
            .paused:
            return violation("RUNNING for a RUN that was not sent to this instance, or was refused")
        case .takingBack, .held, .failed, .completed:
            return []
        }
    }

    /// START_FAILED: a promise, if it is the instance that sent PONG, that this token never starts.
    public mutating func startFailed(_ token: RunToken, reason: String, from instance: InstanceID) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .granted(let grant) where grant.token == token && instance == peer:
            switch refusalPolicy {
            case .takeBack: return takeBack(.startRefused(reason: reason))
            case .wait: current = .refused(token, reason: reason)
            }
            return []
        case .refused(token, _) where instance == peer:
            return []
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .running,
            .paused:
            return violation("START_FAILED for a RUN that is not outstanding at this instance")
        case .takingBack, .held, .failed, .completed:
            return []
        }
    }

    /// START_REQUEST: the destination's `cont` asks for another RUN.
    ///
    /// `grant` carries a token never used before.
    public mutating func startRequested(fresh grant: RunGrant) -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .refused(let token, _):
            precondition(grant.token != token, "a RUN after START_FAILED needs a fresh token")
            current = .granted(grant)
            return [.send(.run(grant))]
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .running, .paused:
            return violation("START_REQUEST where no start has failed")
        case .takingBack, .held, .failed, .completed:
            return []
        }
    }

    /// COMPLETE_ACK: the destination runs and has every page.
    public mutating func completeAcknowledged() -> [SourceAction] {
        guard isLinked else { return [] }
        switch current {
        case .running where completeSent:
            current = .completed
            return [.send(.bye)]
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .running,
            .paused:
            return violation("COMPLETE_ACK before RUNNING or without a COMPLETE")
        case .takingBack, .held, .failed, .completed:
            return []
        }
    }
}

/// The source's side of a switchover as a value: it decides, its driver acts.
///
/// Every event returns what is to be done, in order. The machine passes at most one ``MigrationState`` per event, so
/// that a driver which reads ``state`` after each event sees them all. The end of an operation that nothing waits for
/// is ignored, as is a message after the link was lost.
public struct SourceMachine: Hashable, Sendable {
    enum State: Hashable {
        /// The workload runs and nothing was asked. → setup
        case none
        /// The link is being made and the destination asked. → active, ended
        case setup(startAsked: Bool)
        /// READY came; the workload runs on. → stopping, ended
        case active(startAsked: Bool)
        /// The workload is being stopped; what ends the migration meanwhile waits for that. → saving, takingBack
        case stopping(SwitchoverFailure?)
        /// Devices are being saved; what ends the migration meanwhile waits for that. → awaitingPong, takingBack
        case saving(SwitchoverFailure?)
        /// The devices' state was sent with this PING. → releasing, takingBack
        case awaitingPong(ping: UInt64)
        /// PONG came, the disk locks are being released; what ends the migration waits for that. → granted, running,
        /// takingBack
        case releasing(SwitchoverFailure?)
        /// RUN was sent: only a promise or a won lease brings the workload back. → running, refused, cancelling,
        /// seizing, paused, takingBack
        case granted(RunGrant)
        /// The promise came that this token never starts; the destination may ask again. → renewing, granted,
        /// takingBack
        case refused(RunToken, reason: String)
        /// The destination asked again, the epoch for another RUN is being looked up. → granted, takingBack
        case renewing(RunToken, reason: String)
        /// CANCEL was sent for an outstanding RUN. → running, takingBack, seizing, paused
        case cancelling(RunGrant)
        /// RUNNING came. → completed, paused
        case running(RunGrant)
        /// The link broke with RUN outstanding; the lease decides who runs. → takingBack, paused
        case seizing(RunGrant, SwitchoverFailure)
        /// The link broke after RUN; the workload stays stopped here. → redialing, seizing, takingBack, abandoned
        case paused(RunGrant, Standing, SwitchoverFailure)
        /// A new link is being made. → recovering, paused
        case redialing(RunGrant, Standing, SwitchoverFailure)
        /// Over the new link both sides compare what has arrived. → granted, cancelling, running, paused
        case recovering(RunGrant, Standing, SwitchoverFailure)
        /// The workload is being resumed; clients see the state that ended until it is. → ended, held
        case takingBack(SwitchoverFailure, seenAs: MigrationState)
        /// The resume failed, the workload stays stopped. → takingBack
        case held(SwitchoverFailure, reason: String)
        /// The workload runs here. An end.
        case ended(SwitchoverFailure)
        /// The destination had started and is gone for good, by the operator's word: nobody runs. An end.
        case abandoned(SwitchoverFailure)
        /// The workload and its memory are the destination's. An end.
        case completed
    }

    /// What is known of a start once the link that RUN went over is broken.
    enum Standing: Hashable {
        /// No answer came: it may have started, and may still.
        case unknown
        /// It has started.
        case started
    }

    var current = State.none
    let refusalPolicy: StartRefusalPolicy
    let usesLease: Bool
    /// The link that stands or is being made: from `migrate` or `recover` on, until it breaks or is closed. Events of
    /// any other link are not for this machine.
    public internal(set) var link: LinkNumber?
    /// The number of the attempt that was made last.
    var lastLink = LinkNumber(0)
    /// The instance that sent READY; answers count from no other.
    var peer: InstanceID?
    /// Whether the destination tells if a start has worked.
    var peerTellsStart = true
    /// A `cancel` waits for its answer.
    var cancelWaits = false
    /// CANCEL is to be sent instead of a repeated RUN.
    var cancelWanted = false
    /// The destination may have sent PONG and waits for a word about this token: that the workload was taken back.
    var owedWord: RunToken?
    /// The token whose promise is being used to make the lease's record name the source again.
    var regaining: RunToken?
    /// Why the record cannot be made to name the source: somebody whom no promise speaks of holds the lease.
    var supersession: String?
    var pagesSent = false
    var completeSent = false

    /// Makes the machine of a source whose workload runs.
    ///
    /// With `usesLease`, a run lease that the source holds decides who runs where messages cannot.
    public init(afterStartRefusal refusalPolicy: StartRefusalPolicy = .takeBack, usesLease: Bool = false) {
        self.refusalPolicy = refusalPolicy
        self.usesLease = usesLease
    }

    /// What clients see.
    public var state: MigrationState {
        switch current {
        case .none: .none
        case .setup: .setup
        case .active, .stopping: .active
        case .saving: .device
        case .awaitingPong, .releasing: .postcopyDevice
        case .granted, .refused, .renewing, .running: .postcopyActive
        case .cancelling: .cancelling
        case .seizing, .paused: .postcopyPaused
        case .redialing: .postcopyRecoverSetup
        case .recovering: .postcopyRecover
        case .takingBack(_, let seenAs): seenAs
        case .held(let failure, _), .ended(let failure): failure == .cancelled ? .cancelled : .failed
        case .abandoned: .failed
        case .completed: .completed
        }
    }

    /// Whether somebody has asked for the switchover: without that, nothing ends the wait for it.
    public var isSwitchoverAsked: Bool {
        switch current {
        case .none, .setup(startAsked: false), .active(startAsked: false): false
        case .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing, .takingBack,
            .held, .ended, .cancelling, .running, .seizing, .paused, .redialing, .recovering, .abandoned, .completed:
            true
        }
    }

    /// Whether the workload runs here or can be brought back without asking the destination anything more.
    public var isTakeBackPossible: Bool {
        switch current {
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .refused, .renewing, .takingBack,
            .held, .ended:
            true
        case .granted, .cancelling, .running, .seizing, .paused, .redialing, .recovering, .abandoned, .completed:
            false
        }
    }

    /// Whether the workload is meant to run here now.
    ///
    /// While it is being stopped or resumed it is not.
    public var isWorkloadHere: Bool {
        switch current {
        case .none, .setup, .active, .ended: true
        case .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing, .cancelling, .running,
            .seizing, .paused, .redialing, .recovering, .takingBack, .held, .abandoned, .completed:
            false
        }
    }

    /// Whether the workload has started at the destination, as that has said over the link that stands.
    public var isStartedThere: Bool {
        if case .running = current { return true }
        return false
    }

    /// Whether the workload was to be taken back and stays stopped, as it could not resume.
    public var isHeld: Bool {
        if case .held = current { return true }
        return false
    }

    /// Whether the destination is still to be told that the workload was taken back.
    public var owesWord: Bool { owedWord != nil }

    /// Whether the lease's record is still being made to name the source: until that has ended, nobody else may be
    /// given the lease.
    public var isRegainingLease: Bool { regaining != nil }

    /// Whether the link stands or is being made.
    var isLinked: Bool { link != nil }

    /// Draws the number of a new link, which takes the place of the one before.
    mutating func newLink() -> LinkNumber {
        lastLink = lastLink.next
        link = lastLink
        return lastLink
    }

    /// Whether nothing more is expected of the destination, nor owed to it.
    public var isOver: Bool {
        switch current {
        case .ended: !owesWord
        case .abandoned, .completed: true
        case .none, .setup, .active, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing,
            .cancelling, .running, .seizing, .paused, .redialing, .recovering, .takingBack, .held:
            false
        }
    }

    /// Why the migration failed or stands still, in one line; nil while it goes on.
    public var failureReason: String? {
        switch current {
        case .none, .setup, .active, .awaitingPong, .granted, .cancelling, .running, .completed: nil
        case .stopping(let failure), .saving(let failure), .releasing(let failure): failure?.description
        case .refused(_, let reason), .renewing(_, let reason):
            SwitchoverFailure.startRefused(reason: reason).description
        case .seizing(_, let failure): failure.description
        case .paused(_, let standing, let failure), .redialing(_, let standing, let failure),
            .recovering(_, let standing, let failure):
            switch standing {
            case .started: "\(failure); the workload has started on the destination"
            case .unknown: "\(failure); RUN was sent, whether the workload runs on the destination is unknown"
            }
        case .takingBack(let failure, _), .ended(let failure): failure.description
        case .held(let failure, let reason): "\(failure); the workload stays stopped, it cannot resume: \(reason)"
        case .abandoned(let failure): "\(failure); the destination had started the workload and is gone: nobody runs it"
        }
    }
}

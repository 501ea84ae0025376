package import Identity

/// The source's side of a switchover as a value: the machine decides, its driver acts.
///
/// A *migration* moves a *workload* (a virtual machine or another program) from the *source*, the agent that runs the
/// workload at first, to the *destination*, the agent that runs the workload afterwards. A *promise* is the
/// destination's word, by START_FAILED or CANCELLED, that the RUN with a given token never starts the workload.
///
/// Every event returns the actions for the driver, in order. One event changes ``state`` at most once, so a driver that
/// reads ``state`` after each event sees every state. The machine ignores the end of an operation that no state waits
/// for, and a message that arrives after the link was lost.
package struct SourceMachine: Hashable, Sendable {
    enum State: Hashable {
        /// The workload runs and no command was given. → setup
        case none
        /// The driver makes the link and asks the destination. → active, ended
        case setup(startAsked: Bool)
        /// READY came; the workload still runs here. → preparing, ended
        case active(startAsked: Bool)
        /// The driver prepares the workload, which still runs here. A failure or a cancel meanwhile takes effect when the
        /// preparation ends. → stopping, takingBack
        case preparing(SwitchoverFailure?)
        /// The driver stops the workload. A failure or a cancel meanwhile takes effect when the stop ends. →
        /// preSwitchover, saving, takingBack
        case stopping(SwitchoverFailure?)
        /// The workload is stopped, and the switchover waits for `migrate-continue`. → saving, takingBack
        case preSwitchover
        /// The driver saves the devices. A failure or a cancel meanwhile takes effect when the save ends. →
        /// awaitingPong, takingBack
        case saving(SwitchoverFailure?)
        /// The devices' state was sent, followed by this PING. → releasing, takingBack
        case awaitingPong(ping: UInt64)
        /// PONG came, and the driver releases the disk locks. A failure or a cancel meanwhile takes effect when the
        /// release ends. → granted, running, takingBack
        case releasing(SwitchoverFailure?)
        /// RUN was sent: only a promise or a won lease brings the workload back. → running, refused, cancelling,
        /// seizing, paused, takingBack
        case granted(RunGrant)
        /// The destination promised that this token never starts; the destination may ask for another RUN. → renewing,
        /// granted, takingBack
        case refused(RunToken, reason: String)
        /// The destination asked for another RUN, and the lease's record is written to name the source first. →
        /// granted, takingBack, held
        case renewing(RunToken, reason: String)
        /// CANCEL was sent for a RUN that has no answer yet. → running, takingBack, seizing, paused
        case cancelling(RunGrant)
        /// RUNNING came. → completed, paused
        case running(RunGrant)
        /// The link broke before RUN was answered; the lease decides who runs. → takingBack, paused
        case seizing(RunGrant, SwitchoverFailure)
        /// The link broke after RUN; the workload stays stopped here. → redialing, seizing, takingBack, abandoned
        case paused(RunGrant, Standing, SwitchoverFailure)
        /// The driver makes a new link. → recovering, seizing, paused
        case redialing(RunGrant, Standing, SwitchoverFailure)
        /// Over the new link, both sides compare which pages have arrived. → granted, refused, cancelling, running,
        /// seizing, paused, takingBack
        case recovering(RunGrant, Standing, SwitchoverFailure)
        /// The driver resumes the workload. Until the resume ends, clients see `seenAs`. → ended, held
        case takingBack(SwitchoverFailure, seenAs: MigrationState)
        /// The resume failed, and the workload stays stopped. → takingBack
        case held(SwitchoverFailure, reason: String)
        /// The workload runs here. Final.
        case ended(SwitchoverFailure)
        /// The workload had started on the destination, and the operator says that the destination is gone for good:
        /// the workload runs nowhere. Final.
        case abandoned(SwitchoverFailure)
        /// The workload and its memory have moved to the destination. Final.
        case completed
    }

    /// What the source knows of a start after the link that carried RUN broke.
    enum Standing: Hashable {
        /// No answer came: the workload may have started on the destination, or may still start.
        case unknown
        /// The workload has started on the destination.
        case started
    }

    var current = State.none
    let refusalPolicy: StartRefusalPolicy
    let usesLease: Bool
    let pausesBeforeSwitchover: Bool
    /// The link that stands or is being made: set by `migrate` and `recover`, nil once that link breaks or is closed.
    ///
    /// The driver does not report events of any other link to this machine.
    package internal(set) var link: LinkNumber?
    /// The number of the latest attempt to make a link.
    var lastLink = LinkNumber(0)
    /// The instance that sent READY; only this instance's answers count.
    var peer: InstanceID?
    /// Whether the destination reports if a start has worked.
    var peerTellsStart = true
    /// Whether a `cancel` waits for its answer.
    var cancelWaits = false
    /// Whether the next link sends CANCEL instead of repeating RUN.
    var cancelWanted = false
    /// The token of the RUN that was taken back, until the destination has heard so; `RunToken.none` if no RUN was
    /// sent.
    ///
    /// The destination may have sent PONG and may wait for this message.
    var owedWord: RunToken?
    /// The token whose promise allows the driver to write the source into the lease's record again, while that is under
    /// way.
    var regaining: RunToken?
    /// Why the lease's record cannot name the source again: an owner that the promise does not cover holds the lease.
    var supersession: String?
    var pagesSent = false
    var completeSent = false

    /// Makes the machine of a source whose workload runs.
    ///
    /// - Parameters:
    ///   - refusalPolicy: what the source does after a promise.
    ///   - usesLease: whether the source holds a run lease, which decides who runs where messages cannot.
    ///   - pausesBeforeSwitchover: whether saving the stopped workload's devices waits for `migrate-continue`.
    package init(
        afterStartRefusal refusalPolicy: StartRefusalPolicy = .takeBack,
        usesLease: Bool = false,
        pausesBeforeSwitchover: Bool = false
    ) {
        self.refusalPolicy = refusalPolicy
        self.usesLease = usesLease
        self.pausesBeforeSwitchover = pausesBeforeSwitchover
    }

    /// The migration's state as clients see it.
    package var state: MigrationState {
        switch current {
        case .none: .none
        case .setup: .setup
        case .active, .preparing, .stopping: .active
        case .preSwitchover: .preSwitchover
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

    /// Whether the migration waits for `migrate-start-postcopy` or `migrate-continue`.
    package var awaitsOperator: Bool {
        switch current {
        case .setup(startAsked: false), .active(startAsked: false), .preSwitchover: true
        case .none, .setup, .active, .preparing, .stopping, .saving, .awaitingPong, .releasing, .granted, .refused,
            .renewing,
            .takingBack,
            .held, .ended, .cancelling, .running, .seizing, .paused, .redialing, .recovering, .abandoned, .completed:
            false
        }
    }

    /// Whether the workload runs here or can be taken back without another answer of the destination.
    package var isTakeBackPossible: Bool {
        switch current {
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing,
            .refused, .renewing,
            .takingBack, .held, .ended:
            true
        case .granted, .cancelling, .running, .seizing, .paused, .redialing, .recovering, .abandoned, .completed:
            false
        }
    }

    /// Whether the workload is meant to run here now; false while the workload is being stopped or resumed.
    package var isWorkloadHere: Bool {
        switch current {
        case .none, .setup, .active, .ended: true
        case .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing, .granted, .refused, .renewing,
            .cancelling,
            .running, .seizing, .paused, .redialing, .recovering, .takingBack, .held, .abandoned, .completed:
            false
        }
    }

    /// Whether the run lease decides who runs but could not be read or written, so that the driver must try again.
    package var awaitsLease: Bool {
        switch current {
        case .paused(_, .unknown, .leaseUnreachable), .redialing(_, .unknown, .leaseUnreachable),
            .recovering(_, .unknown, .leaseUnreachable), .seizing:
            usesLease
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing,
            .granted, .refused,
            .renewing, .cancelling, .running, .paused, .redialing, .recovering, .takingBack, .held, .ended, .abandoned,
            .completed:
            false
        }
    }

    /// Whether the migration has ended because an agent refused it, or because that agent is not the named destination.
    package var wasRefused: Bool {
        if case .ended(.refused) = current { return true }
        return hasMetOther
    }

    /// Whether the migration has ended because another agent than the named destination answers.
    package var hasMetOther: Bool {
        if case .ended(.otherDestination) = current { return true }
        return false
    }

    /// Whether the workload resumes if the operator states that the destination is gone and never ran it.
    ///
    /// While a link is being made, the driver gives that link up first.
    package var resumesOnWord: Bool {
        switch current {
        case .paused(_, .unknown, _), .redialing(_, .unknown, _): !usesLease
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing,
            .granted, .refused,
            .renewing, .cancelling, .running, .seizing, .paused, .redialing, .recovering, .takingBack, .held, .ended,
            .abandoned, .completed:
            false
        }
    }

    /// Whether the run lease is being asked who runs the workload.
    package var isAskingLease: Bool {
        if case .seizing = current { return true }
        return false
    }

    /// Whether the destination has reported the workload's start over the link that stands.
    package var isStartedThere: Bool {
        if case .running = current { return true }
        return false
    }

    /// Whether taking the workload back has failed, so that the workload stays stopped.
    package var isHeld: Bool {
        if case .held = current { return true }
        return false
    }

    /// Whether the destination still has to hear that the workload was taken back.
    package var owesWord: Bool { owedWord != nil }

    /// Whether the lease's record is being written to name the source again.
    ///
    /// Until the write ends, the lease must not be given to anyone else.
    package var isRegainingLease: Bool { regaining != nil }

    /// Whether a link stands or is being made.
    var isLinked: Bool { link != nil }

    /// Assigns the number of a new link, which replaces the link before.
    mutating func newLink() -> LinkNumber {
        lastLink = lastLink.next
        link = lastLink
        return lastLink
    }

    /// Whether the source neither expects anything more of the destination nor owes it a message.
    package var isOver: Bool {
        switch current {
        case .ended: !owesWord
        case .abandoned, .completed: true
        case .none, .setup, .active, .preparing, .stopping, .preSwitchover, .saving, .awaitingPong, .releasing,
            .granted, .refused,
            .renewing, .cancelling, .running, .seizing, .paused, .redialing, .recovering, .takingBack, .held:
            false
        }
    }

    /// The remedy for a workload that cannot be resumed.
    static let contAgain = "; when that is fixed: cont at the source"

    /// Why the migration failed or is paused, in one line; nil if nothing has failed.
    package var failureReason: String? {
        switch current {
        case .none, .setup, .active, .preSwitchover, .awaitingPong, .granted, .cancelling, .running, .completed: nil
        case .preparing(let failure), .stopping(let failure), .saving(let failure), .releasing(let failure):
            failure?.description
        case .refused(_, let reason), .renewing(_, let reason):
            SwitchoverFailure.startRefused(reason: reason).description
        case .seizing(_, let failure): failure.description
        case .paused(_, let standing, let failure), .redialing(_, let standing, let failure),
            .recovering(_, let standing, let failure):
            switch standing {
            case .started: "\(failure); the workload has started on the destination"
            case .unknown:
                "\(failure); the start was permitted, and whether the workload runs on the destination is unknown"
            }
        case .takingBack(let failure, _), .ended(let failure): failure.description
        case .held(let failure, let reason):
            "\(failure); the workload cannot be resumed: \(reason)"
        case .abandoned(let failure): "\(failure); the destination had started the workload and is gone: nobody runs it"
        }
    }
}

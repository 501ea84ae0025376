import Connections
import Identity
import LinuxSystem
import QMP
import Switchover

/// Commands of clients.
extension SourceSession {
    /// How long a `cancel` waits for the destination before the answer says that the result is unknown.
    private static let cancelTime = Duration.seconds(30)

    /// How long the word that the destination is gone waits for a link or a lease that is about to decide.
    private static let wordLimit = Duration.seconds(30)
    /// When the machine accepts that word.
    static let whenGone = "while query-migrate shows postcopy-paused or a recovery"
    /// The reason of a link that is given up on that word.
    private static let goneReason = "the operator states that the destination is gone"

    /// `migrate-start-postcopy`: begins the switchover once the destination is ready.
    func startPostcopy() throws(CommandRefused) {
        switch machine.startPostcopy() {
        case .refuse(let reason) where machine.state == .completed: throw CommandRefused(reason: reason + wayBack)
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .remember: break
        case .prepare: perform([.prepare])
        }
    }

    /// `migrate-continue`: continues a switchover that waits in pre-switchover.
    func migrateContinue() throws(CommandRefused) {
        switch machine.migrateContinue() {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .save: perform([.save])
        }
    }

    /// `migrate_cancel`: returns once the workload is back here.
    ///
    /// - Throws: ``CommandRefused`` with the reason if the workload is not back, or if that is not known yet.
    func cancel() async throws {
        let actions: [SourceAction]
        switch machine.cancel() {
        case .succeeded: return
        case .refuse(let reason): throw CommandRefused(reason: reason + wayBack)
        case .waits(let next): actions = next
        }
        deviceStates.ahead.giveUp()
        let isFirst = waiting.cancels.isEmpty
        try await withCheckedThrowingContinuation { caller in
            waiting.cancels.add(caller)
            if isFirst { events.add(.cancelOverdue(waiting.cancels.rounds), after: SourceSession.cancelTime) }
            perform(actions)
        }
    }

    /// The end of the answer to a `cancel` that comes after the workload's start: how the workload moves back.
    var wayBack: String {
        switch machine.state {
        case .completed: "; to move it back, run migrate there"
        case .postcopyActive, .postcopyRecoverSetup, .postcopyRecover:
            "; follow it with query-migrate; once that shows completed, run migrate there to move it back"
        // The reason of any other state has its own remedy.
        case .none, .setup, .active, .preSwitchover, .device, .postcopyDevice, .postcopyPaused, .cancelling,
            .cancelled, .failed:
            ""
        }
    }

    /// Who can make a new link, and when.
    static let whoResumes =
        "only the source of a migration in postcopy-paused makes a new link; look again with query-migrate"

    /// `migrate` with `resume`: redials the destination of a paused migration.
    ///
    /// - Parameter address: where the destination listens now; nil for the previous address.
    func recover(at address: SocketAddress?) throws(CommandRefused) {
        switch machine.recover() {
        case .refuse(let reason): throw CommandRefused(reason: "\(reason); \(SourceSession.whoResumes)")
        case .connect(let link):
            if let address { destination = address }
            redialing.reset()
            perform([.connect(link)])
        }
    }

    /// `migrate-pause`: breaks the link, as a network failure would.
    func pause() throws(CommandRefused) {
        guard machine.state == .postcopyActive, link != nil else {
            throw CommandRefused(
                reason: "only a migration in postcopy-active can be paused, it is \(machine.state.rawValue)"
            )
        }
        redialing.holdsStill = true
        endLink(SwitchoverFailure.pausedByOperator)
    }

    /// Ends the wait for a destination that the operator declares gone.
    ///
    /// A link that is being made is given up, since its destination has not answered. If the destination has answered,
    /// or the run lease is being asked, the word waits for that outcome, for ``wordLimit`` at most.
    ///
    /// - Parameter hasRun: whether the workload has run at the destination: if so, it is lost; if not, it is resumed
    ///   here.
    /// - Throws: ``CommandRefused`` if the machine refuses, or if the resume fails.
    func destinationIsGone(hasRun: Bool) async throws {
        try await settle(before: hasRun)
        let isOther = machine.state != .postcopyPaused && loss == nil
        switch machine.destinationIsGone(hasRun: hasRun) {
        case .refuse(let reason) where isOther:
            throw CommandRefused(reason: "\(reason); this is accepted only \(SourceSession.whenGone)")
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .takeBack:
            try await withCheckedThrowingContinuation { caller in
                waiting.resumes.add(caller)
                perform([.resume])
            }
        case .abandoned: note()
        }
    }

    /// Brings the migration to a state in which the machine accepts the word that the destination is gone.
    ///
    /// - Throws: ``CommandRefused`` if the word is refused, or if the state does not come in ``wordLimit``.
    private func settle(before hasRun: Bool) async throws(CommandRefused) {
        var number: Int?
        while true {
            switch machine.state {
            case .postcopyRecoverSetup where hasRun || settings.lease == nil:
                // A word that the machine refuses must not end the attempt to make a link.
                var later = machine
                _ = later.linkEnded(reason: SourceSession.goneReason)
                if !later.isAskingLease, case .refuse(let reason) = later.destinationIsGone(hasRun: hasRun) {
                    throw CommandRefused(reason: reason)
                }
                endLink(SourceSession.goneReason)
                continue
            case .postcopyRecoverSetup: throw CommandRefused(reason: SourceMachine.leaseDecides)
            case .postcopyRecover: break
            case .postcopyPaused where machine.isAskingLease: break
            default: return
            }
            guard number.map({ goneWords.overdue < $0 }) ?? true else {
                let other = machine.isAskingLease ? "the run lease is still being asked" : "a link is still being made"
                throw CommandRefused(reason: "\(other); this is accepted only \(SourceSession.whenGone)")
            }
            if number == nil {
                goneWords.made += 1
                number = goneWords.made
                events.add(.goneOverdue(goneWords.made), after: SourceSession.wordLimit)
            }
            await nextChange()
        }
    }

    /// `cont` at a source whose resume has failed: tries the resume again.
    ///
    /// - Throws: ``CommandRefused`` if the machine refuses, or if the resume fails again.
    func retryResume() async throws {
        switch machine.retryResume() {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .resume:
            try await withCheckedThrowingContinuation { caller in
                waiting.resumes.add(caller)
                perform([.resume])
            }
        }
    }
}

import Identity
import Switchover
import Testing

private let peer = InstanceID(34)
private let stranger = InstanceID(35)
private let first = RunGrant(token: RunToken(11), epoch: 5)
private let second = RunGrant(token: RunToken(12), epoch: 5)

extension SourceMachine {
    /// Machines on the happy path.
    fileprivate static func active(_ policy: StartRefusalPolicy = .takeBack) -> SourceMachine {
        var machine = SourceMachine(afterStartRefusal: policy)
        _ = machine.migrate()
        _ = machine.linkUp()
        _ = machine.ready(from: peer)
        return machine
    }

    fileprivate static func awaitingPong(_ policy: StartRefusalPolicy = .takeBack) -> SourceMachine {
        var machine = active(policy)
        _ = machine.startPostcopy()
        _ = machine.prepared()
        _ = machine.stopped()
        _ = machine.saved(ping: 9)
        return machine
    }

    fileprivate static func granted(_ policy: StartRefusalPolicy = .takeBack) -> SourceMachine {
        var machine = awaitingPong(policy)
        _ = machine.pong(9, from: peer)
        _ = machine.released(fresh: first)
        return machine
    }
}

@Suite("A source")
struct SourceMachineTests {
    @Test("passes the states of a successful migration in order")
    func happyPath() {
        var machine = SourceMachine()
        #expect(machine.state == .none)
        #expect(machine.migrate() == .connect(LinkNumber(1)))
        #expect(machine.state == .setup)
        #expect(machine.linkUp() == [.send(.hello)])
        #expect(machine.ready(from: peer) == [])
        #expect(machine.state == .active && machine.isWorkloadHere)
        #expect(machine.startPostcopy() == .prepare)
        #expect(machine.state == .active && !machine.isWorkloadHere)
        #expect(machine.prepared() == [.stop])
        #expect(machine.state == .active)
        #expect(machine.stopped() == [.save])
        #expect(machine.state == .device)
        #expect(machine.saved(ping: 9) == [.send(.listen), .send(.devices), .send(.ping(9))])
        #expect(machine.state == .postcopyDevice)
        #expect(machine.pong(9, from: peer) == [.releaseLocks])
        #expect(machine.state == .postcopyDevice && machine.isTakeBackPossible)
        #expect(machine.released(fresh: first) == [.send(.run(first))])
        #expect(machine.state == .postcopyActive && !machine.isTakeBackPossible)
        #expect(machine.running(first.token, from: peer) == [])
        #expect(machine.allPagesSent() == [.send(.complete)])
        #expect(machine.allPagesSent() == [])
        #expect(machine.completeAcknowledged() == [.send(.bye)])
        #expect(machine.state == .completed && machine.failureReason == nil)
        #expect(machine.linkLost(reason: "closed") == [])
        #expect(machine.state == .completed)
    }

    @Test("remembers migrate-start-postcopy until READY, and is active meanwhile")
    func earlyStart() {
        var machine = SourceMachine()
        #expect(machine.startPostcopy() == .refuse(reason: "no migration is under way; run migrate first"))
        _ = machine.migrate()
        #expect(machine.startPostcopy() == .remember)
        #expect(machine.ready(from: peer) == [.proceed])
        #expect(machine.state == .active)
        #expect(machine.proceed() == [.prepare])
        #expect(machine.state == .active)
        #expect(machine.startPostcopy() == .refuse(reason: "the switchover was begun before, the migration is active"))
        #expect(machine.migrate() == .refuse(reason: "a migration was begun before; its state is active"))

        var failed = SourceMachine()
        _ = failed.migrate()
        _ = failed.linkLost(reason: "refused")
        #expect(failed.startPostcopy() == .refuse(reason: "the last migration is failed; run migrate first"))
    }

    @Test("learns of a start only from a RUNNING that it accepted, not from one that comes too late")
    func startedThere() {
        var machine = SourceMachine.granted()
        #expect(!machine.isStartedThere)
        var other = machine
        _ = machine.running(first.token, from: peer)
        #expect(machine.isStartedThere)
        _ = other.startFailed(first.token, reason: "no disk", from: peer)
        _ = other.running(first.token, from: peer)
        #expect(other.state == .postcopyActive && !other.isStartedThere)
    }

    @Test("reports why it was refused")
    func refused() {
        var machine = SourceMachine()
        _ = machine.migrate()
        #expect(machine.refused(reason: "2 GiB are too much") == [.closeLink(reason: "refused")])
        #expect(machine.state == .failed && machine.isWorkloadHere)
        #expect(machine.failureReason == "the destination refuses the migration: 2 GiB are too much")
    }

    @Test("waits for the stop to end before it resumes, and keeps the first reason")
    func lossWhileStopping() {
        var machine = SourceMachine.active()
        _ = machine.startPostcopy()
        _ = machine.prepared()
        #expect(machine.linkLost(reason: "reset") == [])
        #expect(machine.state == .active)
        #expect(machine.stopped() == [.resume])
        #expect(machine.state == .active)
        #expect(machine.resumed() == [])
        #expect(machine.state == .failed && machine.isWorkloadHere)
        #expect(machine.failureReason == "the control link broke: reset")
    }

    @Test("does not stop a workload whose move has ended while it was prepared", arguments: [true, false])
    func endWhilePreparing(isCancelled: Bool) {
        var machine = SourceMachine.active()
        _ = machine.startPostcopy()
        if isCancelled {
            #expect(machine.cancel() == .waits([]))
        } else {
            #expect(machine.linkLost(reason: "reset") == [])
        }
        #expect(machine.state == .active)
        // Only the end of the preparation counts now.
        #expect(machine.stopped() == [])
        #expect(machine.prepared() == [.resume])
        #expect(machine.prepared() == [])
        _ = machine.resumed()
        #expect(machine.state == (isCancelled ? .cancelled : .failed) && machine.isWorkloadHere)
    }

    @Test("continues to run a workload that could not be prepared")
    func prepareFails() {
        var machine = SourceMachine.active()
        _ = machine.startPostcopy()
        #expect(machine.stopFailed(reason: "no memory") == [.resume])
        _ = machine.resumed()
        #expect(machine.state == .failed && machine.isWorkloadHere)
    }

    @Test("resumes when a device cannot be saved, then closes the link")
    func saveFails() {
        var machine = SourceMachine.active()
        _ = machine.startPostcopy()
        _ = machine.prepared()
        _ = machine.stopped()
        #expect(machine.saveFailed(device: "serial", reason: "busy") == [.resume])
        #expect(machine.resumed() == [.closeLink(reason: "cannot save device serial: busy")])
        #expect(machine.state == .failed)
    }

    @Test("takes its locks again when the link breaks while it releases them")
    func lossWhileReleasing() {
        var machine = SourceMachine.awaitingPong()
        _ = machine.pong(9, from: peer)
        #expect(machine.linkLost(reason: "reset") == [])
        #expect(machine.isTakeBackPossible)
        // The destination has sent PONG and waits, so the source must report the take-back.
        #expect(machine.released(fresh: first) == [.resume, .redial(LinkNumber(2))])
        #expect(machine.resumed() == [])
        #expect(machine.state == .failed)
    }

    @Test("saves its devices only after migrate-continue, if it pauses before the switchover")
    func pausesBeforeSwitchover() {
        var machine = SourceMachine(pausesBeforeSwitchover: true)
        _ = machine.migrate()
        _ = machine.linkUp()
        _ = machine.ready(from: peer)
        #expect(
            machine.migrateContinue()
                == .refuse(reason: "the migration does not wait in pre-switchover, it is active")
        )
        #expect(machine.startPostcopy() == .prepare)
        #expect(machine.prepared() == [.stop])
        #expect(!machine.awaitsOperator)
        #expect(machine.stopped() == [])
        #expect(machine.state == .preSwitchover && machine.isTakeBackPossible && machine.awaitsOperator)
        var cut = machine
        #expect(cut.linkLost(reason: "cut") == [.resume])
        var cancelled = machine
        #expect(cancelled.cancel() == .waits([.resume]))
        #expect(cancelled.resumed().contains(.cancelSucceeded))
        #expect(machine.migrateContinue() == .save)
        #expect(machine.state == .device)
        #expect(machine.saved(ping: 9).first == .send(.listen))
    }

    @Test("takes the workload back on the operator's word only before RUNNING")
    func word() {
        let machine = SourceMachine.granted()
        #expect(!machine.resumesOnWord)
        var started = machine
        _ = started.running(first.token, from: peer)
        for isStarted in [false, true] {
            var paused = isStarted ? started : machine
            _ = paused.linkLost(reason: "cut")
            #expect(paused.state == .postcopyPaused && paused.resumesOnWord == !isStarted)
            #expect((paused.destinationIsGone(hasRun: false) == .takeBack) == !isStarted)
        }
    }

    @Test("stays paused with lost memory as the reason, and takes the workload back before RUN")
    func memoryLost() {
        var machine = SourceMachine.granted()
        _ = machine.running(first.token, from: peer)
        #expect(machine.memoryLost(reason: "page 7 is gone") == [])
        #expect(machine.state == .postcopyPaused && machine.link == nil)
        #expect(
            machine.failureReason
                == "memory of the workload is lost at the source: page 7 is gone; the workload has started on the destination"
        )
        #expect(machine.memoryLost(reason: "page 8 is gone") == [])
        #expect(machine.failureReason?.contains("page 7") == true)
        var before = SourceMachine.awaitingPong()
        #expect(before.memoryLost(reason: "page 7 is gone") == [.resume, .redial(LinkNumber(2))])
    }

    @Test("asks an unreachable lease again, even after another link was made and broke")
    func leaseIsAskedAgain() {
        var machine = SourceMachine(usesLease: true)
        _ = machine.migrate()
        _ = machine.linkUp()
        _ = machine.ready(from: peer)
        _ = machine.startPostcopy()
        _ = machine.prepared()
        _ = machine.stopped()
        _ = machine.saved(ping: 9)
        _ = machine.pong(9, from: peer)
        _ = machine.released(fresh: first)
        #expect(machine.leaseDue() == [])
        #expect(machine.linkLost(reason: "cut") == [.seizeLease(first)])
        let asked = "the run lease is being asked who runs the workload; look again with query-migrate in some seconds"
        #expect(machine.destinationIsGone(hasRun: false) == .refuse(reason: asked))
        #expect(machine.leaseUnreachable(reason: "no store") == [])
        #expect(machine.state == .postcopyPaused && machine.awaitsLease)
        #expect(!machine.resumesOnWord)
        #expect(machine.leaseDue() == [.seizeLease(first)])
        #expect(machine.leaseDue() == [])
        _ = machine.leaseUnreachable(reason: "no store")
        _ = machine.recover()
        #expect(machine.leaseDue() == [])
        #expect(machine.linkLost(reason: "cut again") == [.seizeLease(first)])
        #expect(machine.leaseTaken().first == .resume)
    }

    @Test("treats a PONG with another number or from another instance as a violation, and resumes")
    func wrongPong() {
        for (number, instance) in [(UInt64(8), peer), (9, stranger)] {
            var machine = SourceMachine.awaitingPong()
            let actions = machine.pong(number, from: instance)
            #expect(actions.dropFirst() == [.resume, .redial(LinkNumber(2))])
            guard case .violation? = actions.first else { Issue.record("\(actions)"); continue }
            #expect(machine.resumed() == [])
            #expect(machine.state == .failed)
        }
    }

    @Test("never resumes after RUN because of the link")
    func lossAfterRun() {
        var machine = SourceMachine.granted()
        #expect(machine.linkLost(reason: "reset") == [])
        #expect(machine.state == .postcopyPaused && !machine.isWorkloadHere && !machine.isTakeBackPossible)
        #expect(
            machine.failureReason
                == "the control link broke: reset; the start was permitted, and whether the workload runs on the destination "
                + "is unknown"
        )
        #expect(machine.startFailed(first.token, reason: "late", from: peer) == [])
        #expect(machine.state == .postcopyPaused)
    }

    @Test("takes the workload back only on a promise of its peer")
    func promise() {
        var machine = SourceMachine.granted()
        #expect(
            machine.startFailed(first.token, reason: "disk is locked", from: peer)
                == [.resume, .send(.cancel(first.token))]
        )
        #expect(machine.state == .postcopyActive)
        #expect(machine.resumed() == [])
        #expect(machine.state == .failed && machine.isWorkloadHere && !machine.isOver)
        #expect(machine.cancelled(first.token, from: peer) == [.send(.bye)])
        #expect(machine.isOver)

        machine = SourceMachine.granted()
        let actions = machine.startFailed(first.token, reason: "", from: stranger)
        #expect(actions.count == 1 && !actions.contains(.resume))
        #expect(machine.state == .postcopyPaused)

        // A promise for another RUN does not cover this one.
        machine = SourceMachine.granted()
        #expect(machine.startFailed(second.token, reason: "", from: peer) == [])
        #expect(machine.state == .postcopyActive && !machine.isTakeBackPossible)
    }

    @Test("does not believe a promise after RUNNING")
    func promiseAfterRunning() {
        var machine = SourceMachine.granted()
        _ = machine.running(first.token, from: peer)
        #expect(machine.running(first.token, from: peer) == [])
        #expect(!machine.startFailed(first.token, reason: "", from: peer).contains(.resume))
        #expect(machine.state == .postcopyPaused)
    }

    @Test("that waits grants another RUN, and takes the workload back if the link breaks instead")
    func anotherRun() {
        var machine = SourceMachine.granted(.wait)
        #expect(machine.startFailed(first.token, reason: "locked", from: peer) == [])
        #expect(machine.state == .postcopyActive && machine.isTakeBackPossible)
        var other = machine
        #expect(machine.startRequested(fresh: second) == [.send(.run(second))])
        #expect(!machine.isTakeBackPossible)
        #expect(machine.running(second.token, from: peer) == [])
        #expect(other.linkLost(reason: "reset") == [.resume, .redial(LinkNumber(2))])
    }

    /// A machine whose destination has asked for another RUN, while the source regains the lease.
    private func renewing() -> SourceMachine {
        var machine = SourceMachine(afterStartRefusal: .wait, usesLease: true)
        _ = machine.migrate()
        _ = machine.linkUp()
        _ = machine.ready(from: peer)
        _ = machine.startPostcopy()
        _ = machine.prepared()
        _ = machine.stopped()
        _ = machine.saved(ping: 9)
        _ = machine.pong(9, from: peer)
        _ = machine.released(fresh: first)
        _ = machine.startFailed(first.token, reason: "locked", from: peer)
        return machine
    }

    @Test("regains the lease by one attempt at a time")
    func oneRegain() {
        var machine = renewing()
        #expect(machine.startRequested(fresh: second) == [.regainLease(first.token)])
        #expect(machine.isRegainingLease)
        #expect(machine.cancel() == .waits([.resume, .send(.cancel(.none))]))
        #expect(machine.resumed() == [.cancelSucceeded])
        #expect(machine.state == .cancelled && machine.isRegainingLease)
        #expect(machine.leaseRegained(fresh: second) == [])
        #expect(!machine.isRegainingLease)
    }

    @Test("does not resume if another owner has the lease, and no promise covers that owner")
    func superseded() {
        var machine = renewing()
        _ = machine.startRequested(fresh: second)
        #expect(machine.leaseSuperseded(reason: "it is another's") == [.send(.cancel(first.token))])
        #expect(machine.isHeld && !machine.isWorkloadHere)
        #expect(machine.retryResume() == .refuse(reason: "it is another's"))
    }

    @Test("answers a cancel that waits too long with what is known, and keeps the cancel pending")
    func overdueCancel() {
        var machine = SourceMachine.granted()
        #expect(machine.cancelOverdue() == [])
        _ = machine.cancel()
        guard case .cancelUnknown(let reason)? = machine.cancelOverdue().first else {
            Issue.record("no answer"); return
        }
        #expect(reason.contains("whether the workload runs there is unknown"))
        #expect(machine.cancelled(first.token, from: peer) == [.resume, .send(.bye)])
        #expect(machine.resumed() == [])
        #expect(machine.state == .cancelled)
    }

    @Test("draws a new number for each link")
    func linkNumbers() {
        var machine = SourceMachine.granted()
        #expect(machine.link == LinkNumber(1))
        _ = machine.linkLost(reason: "reset")
        #expect(machine.link == nil)
        #expect(machine.recover() == .connect(LinkNumber(2)))
        #expect(machine.link == LinkNumber(2))
    }

    @Test("stays stopped if its locks are gone, says so, and can be told to retry")
    func heldBack() {
        var machine = SourceMachine.awaitingPong()
        #expect(machine.retryResume() == .refuse(reason: "no resume has failed here, the migration is postcopy-device"))
        #expect(machine.devicesFailed(device: "clock", reason: "newer") == [.resume])
        #expect(
            machine.resumeFailed(reason: "disk is locked")
                == [.closeLink(reason: "the destination cannot load device clock: newer")]
        )
        #expect(machine.state == .failed && !machine.isWorkloadHere)
        #expect(
            machine.failureReason
                == "the destination cannot load device clock: newer; the workload cannot be resumed: "
                + "disk is locked; when that is fixed: cont at the source"
        )
        #expect(machine.retryResume() == .resume)
        #expect(machine.resumed() == [])
        #expect(machine.isWorkloadHere)
    }

    @Test("completes only after RUNNING")
    func earlyAcknowledgement() {
        var machine = SourceMachine.granted()
        #expect(machine.allPagesSent() == [.send(.complete)])
        #expect(machine.completeAcknowledged() == [.violation("COMPLETE_ACK before RUNNING or without a COMPLETE")])
        #expect(machine.state == .postcopyPaused)
    }

    @Test("sends COMPLETE after PING if all pages were sent before")
    func pagesSentEarly() {
        var machine = SourceMachine.active()
        _ = machine.startPostcopy()
        _ = machine.prepared()
        _ = machine.stopped()
        #expect(machine.allPagesSent() == [])
        #expect(machine.saved(ping: 1) == [.send(.listen), .send(.devices), .send(.ping(1)), .send(.complete)])
    }

    @Test("treats a message out of order as a violation")
    func outOfOrder() {
        var machine = SourceMachine.active()
        #expect(machine.ready(from: peer) == [.violation("READY after the setup")])
        #expect(machine.state == .failed)
        machine = .active()
        #expect(machine.refused(reason: "") == [.violation("REFUSED after the setup")])
        machine = .active()
        #expect(machine.devicesFailed(device: "", reason: "").count == 1)
        machine = .active()
        #expect(machine.startRequested(fresh: first).count == 1)
        machine = .awaitingPong()
        #expect(machine.running(first.token, from: peer).contains(.resume))
    }
}

import Switchover
import Testing

private let peer = InstanceID(high: 3, low: 4)
private let stranger = InstanceID(high: 3, low: 5)
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
    @Test("goes the happy path, state by state")
    func happyPath() {
        var machine = SourceMachine()
        #expect(machine.state == .none)
        #expect(machine.migrate() == .connect(LinkNumber(1)))
        #expect(machine.state == .setup)
        #expect(machine.linkUp() == [.send(.hello)])
        #expect(machine.ready(from: peer) == [])
        #expect(machine.state == .active && machine.isWorkloadHere)
        #expect(machine.startPostcopy() == .stop)
        #expect(machine.state == .active && !machine.isWorkloadHere)
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

    @Test("remembers migrate-start-postcopy until READY and shows active between")
    func earlyStart() {
        var machine = SourceMachine()
        #expect(machine.startPostcopy() == .refuse(reason: "no migration is under way; run migrate first"))
        _ = machine.migrate()
        #expect(machine.startPostcopy() == .remember)
        #expect(machine.ready(from: peer) == [.proceed])
        #expect(machine.state == .active)
        #expect(machine.proceed() == [.stop])
        #expect(machine.state == .active)
        #expect(machine.startPostcopy() == .refuse(reason: "the switchover was begun before, the migration is active"))
        #expect(machine.migrate() == .refuse(reason: "a migration was begun before, it is active"))
    }

    @Test("knows of a start there only by a RUNNING that it took, not by one that comes too late")
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

    @Test("says why it is refused")
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
        #expect(machine.linkLost(reason: "reset") == [])
        #expect(machine.state == .active)
        #expect(machine.stopped() == [.resume])
        #expect(machine.state == .active)
        #expect(machine.resumed() == [])
        #expect(machine.state == .failed && machine.isWorkloadHere)
        #expect(machine.failureReason == "the control link broke: reset")
    }

    @Test("resumes when a device cannot be saved, then closes the link")
    func saveFails() {
        var machine = SourceMachine.active()
        _ = machine.startPostcopy()
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
        // The destination has sent PONG and waits: it is to be told.
        #expect(machine.released(fresh: first) == [.resume, .redial(LinkNumber(2))])
        #expect(machine.resumed() == [])
        #expect(machine.state == .failed)
    }

    @Test("takes a PONG with another number, or from another instance, for a breach and resumes")
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
                == "the control link broke: reset; RUN was sent, whether the workload runs on the destination "
                + "is unknown"
        )
        #expect(machine.startFailed(first.token, reason: "late", from: peer) == [])
        #expect(machine.state == .postcopyPaused)
    }

    @Test("takes back on the promise of its peer, and on no other")
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

        // The last word on another RUN says nothing of this one.
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

    @Test("that waits grants another RUN, and takes back when the link breaks instead")
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

    /// The destination's `cont` has asked for another RUN, and the lease's record is being made the source's again.
    private func renewing() -> SourceMachine {
        var machine = SourceMachine(afterStartRefusal: .wait, usesLease: true)
        _ = machine.migrate()
        _ = machine.linkUp()
        _ = machine.ready(from: peer)
        _ = machine.startPostcopy()
        _ = machine.stopped()
        _ = machine.saved(ping: 9)
        _ = machine.pong(9, from: peer)
        _ = machine.released(fresh: first)
        _ = machine.startFailed(first.token, reason: "locked", from: peer)
        return machine
    }

    @Test("makes the lease's record its own by one attempt at a time")
    func oneRegain() {
        var machine = renewing()
        #expect(machine.startRequested(fresh: second) == [.regainLease(first.token)])
        #expect(machine.isRegainingLease)
        #expect(machine.cancel() == .waits([.resume, .send(.cancel(first.token))]))
        #expect(machine.resumed() == [.cancelSucceeded])
        #expect(machine.state == .cancelled && machine.isRegainingLease)
        #expect(machine.leaseRegained(fresh: second) == [])
        #expect(!machine.isRegainingLease)
    }

    @Test("does not resume what somebody else has the lease of, whom no promise speaks of")
    func superseded() {
        var machine = renewing()
        _ = machine.startRequested(fresh: second)
        #expect(machine.leaseSuperseded(reason: "it is another's") == [.send(.cancel(first.token))])
        #expect(machine.isHeld && !machine.isWorkloadHere)
        #expect(machine.retryResume() == .refuse(reason: "it is another's"))
    }

    @Test("answers a cancel that waits too long with what is known, and keeps the wish")
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

    @Test("stays stopped if its locks are gone, says so, and can be told to try again")
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
                == "the destination cannot load device clock: newer; the workload stays stopped, it cannot resume: "
                + "disk is locked"
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
        _ = machine.stopped()
        #expect(machine.allPagesSent() == [])
        #expect(machine.saved(ping: 1) == [.send(.listen), .send(.devices), .send(.ping(1)), .send(.complete)])
    }

    @Test("takes a message out of order for a breach")
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

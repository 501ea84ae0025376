import Identity
import Switchover
import Testing

private let first = RunGrant(token: RunToken(11), epoch: 5)
private let second = RunGrant(token: RunToken(12), epoch: 5)

extension DestinationMachine {
    /// Machines on the happy path.
    fileprivate static func active(startsStopped: Bool = false) -> DestinationMachine {
        var machine = DestinationMachine(startsStopped: startsStopped)
        _ = machine.migrateIncoming()
        _ = machine.hello()
        _ = machine.memoryPrepared()
        return machine
    }

    fileprivate static func loaded(startsStopped: Bool = false) -> DestinationMachine {
        var machine = active(startsStopped: startsStopped)
        _ = machine.listen()
        _ = machine.devices()
        _ = machine.ping(9)
        _ = machine.devicesLoaded()
        return machine
    }

    fileprivate static func running() -> DestinationMachine {
        var machine = loaded()
        _ = machine.run(first)
        _ = machine.acquired()
        _ = machine.started()
        return machine
    }

    fileprivate static func refused() -> DestinationMachine {
        var machine = loaded()
        _ = machine.run(first)
        _ = machine.acquireFailed(reason: "disk is locked")
        _ = machine.undone()
        return machine
    }
}

@Suite("A destination")
struct DestinationMachineTests {
    @Test("passes the states of a successful migration in order")
    func happyPath() {
        var machine = DestinationMachine()
        #expect(machine.migrateIncoming() == .listen)
        #expect(machine.migrateIncoming() == .refuse(reason: "a migration was begun before; its state is setup"))
        #expect(machine.state == .setup)
        #expect(machine.hello() == [.prepareMemory])
        #expect(machine.memoryPrepared() == [.send(.ready)])
        #expect(machine.state == .active)
        #expect(machine.listen() == [.serveFaults])
        #expect(machine.state == .postcopyDevice)
        #expect(machine.devices() == [])
        #expect(machine.ping(9) == [.loadDevices])
        #expect(machine.mayLeave)
        #expect(machine.devicesLoaded() == [.send(.pong(9))])
        #expect(!machine.mayLeave)
        #expect(machine.run(first) == [.acquire(first)])
        #expect(!machine.isCommitted)
        #expect(machine.acquired() == [.start(first)])
        #expect(machine.state == .postcopyDevice && machine.isCommitted)
        #expect(machine.started() == [.send(.running(first.token))])
        #expect(machine.state == .postcopyActive)
        #expect(machine.cont() == .succeeded)
        #expect(machine.complete() == [])
        #expect(machine.allPagesResident() == [.send(.completeAck)])
        #expect(machine.state == .completed && !machine.mayLeave)
        #expect(machine.bye() == [.closeLink(reason: "the migration is complete")])
        #expect(machine.mayLeave)
    }

    @Test("starts only on a RUN that comes after PONG")
    func earlyRun() {
        var machine = DestinationMachine.active()
        _ = machine.listen()
        _ = machine.devices()
        _ = machine.ping(9)
        #expect(machine.run(first) == [.violation("RUN before PONG was sent")])
        #expect(machine.state == .failed)
        #expect(machine.devicesLoaded() == [])
    }

    @Test("answers a repeated RUN with its last answer and never starts twice")
    func repeatedRun() {
        var machine = DestinationMachine.loaded()
        _ = machine.run(first)
        #expect(machine.run(first) == [])
        _ = machine.acquired()
        #expect(machine.run(first) == [])
        _ = machine.started()
        #expect(machine.run(first) == [.send(.running(first.token))])
        #expect(machine.run(second) == [.violation("RUN while another RUN decides")])
        #expect(machine.state == .postcopyPaused && machine.isCommitted)

        machine = .refused()
        #expect(machine.run(first) == [.send(.startFailed(first.token, reason: "disk is locked"))])
        #expect(machine.run(second) == [.acquire(second)])
        #expect(machine.run(first) == [.send(.startFailed(first.token, reason: "disk is locked"))])
    }

    @Test("promises only after everything is undone")
    func refusedStart() {
        for failsLate in [false, true] {
            var machine = DestinationMachine.loaded()
            _ = machine.run(first)
            if failsLate {
                _ = machine.acquired()
                #expect(machine.startFailed(reason: "disk is locked") == [.undo(first)])
            } else {
                #expect(machine.acquireFailed(reason: "disk is locked") == [.undo(first)])
            }
            #expect(!machine.isCommitted)
            #expect(machine.undone() == [.send(.startFailed(first.token, reason: "disk is locked"))])
            #expect(machine.state == .postcopyDevice && !machine.mayLeave)
            #expect(machine.failureReason == "the destination cannot start the workload: disk is locked")
        }
    }

    @Test("reports RUNNING for a start whose workload has ended, and cont fails with the reason")
    func deadStart() {
        var machine = DestinationMachine.loaded(startsStopped: true)
        _ = machine.run(first)
        #expect(machine.cont() == .acquire(first))
        _ = machine.acquired()
        let reason = "the workload was started and has ended: killed"
        #expect(machine.startEnded(reason: "killed") == [.send(.running(first.token)), .contFailed(reason: reason)])
        #expect(machine.isCommitted)
        #expect(machine.cont() == .failed(reason: reason))
    }

    @Test("promises not to start once starts are prohibited")
    func prohibited() {
        var machine = DestinationMachine.loaded(startsStopped: true)
        _ = machine.run(first)
        let promise = DestinationAction.send(.startFailed(first.token, reason: "the agent ends"))
        #expect(machine.prohibitStart(reason: "the agent ends") == [promise])
        #expect(machine.run(second) == [.send(.startFailed(second.token, reason: "the agent ends"))])

        machine = .loaded()
        _ = machine.run(first)
        #expect(machine.prohibitStart(reason: "the agent ends") == [])
        #expect(machine.acquired() == [.undo(first)])
        #expect(machine.undone() == [promise])

        var leased = DestinationMachine(usesLease: true)
        _ = leased.migrateIncoming()
        _ = leased.hello()
        _ = leased.memoryPrepared()
        _ = leased.listen()
        _ = leased.devices()
        _ = leased.ping(9)
        _ = leased.devicesLoaded()
        _ = leased.run(first)
        #expect(leased.acquired() == [.commitLease(first)])
        #expect(leased.prohibitStart(reason: "the agent ends") == [])
        #expect(leased.leaseCommitted() == [.undo(first)])
        #expect(leased.undone() == [.returnLease(first)])
        #expect(leased.leaseReturned() == [promise])
    }

    @Test("exits once nobody needs it: not while a workload that runs here needs pages, or a source an answer")
    func exits() {
        var running = DestinationMachine.loaded()
        _ = running.run(first)
        _ = running.acquired()
        _ = running.exit(reason: "the agent ends", isPatient: true)
        #expect(running.exitWait == .start)
        _ = running.started()
        #expect(running.exitWait == .pages && running.isNeeded)
        _ = running.linkLost(reason: "reset")
        #expect(running.exitWait == .pages && running.isNeeded)
        var impatient = running
        _ = impatient.exit(reason: "the agent ends", isPatient: false)
        #expect(impatient.exitWait == nil && impatient.isNeeded && !impatient.isPatient)
        _ = impatient.exit(reason: "the agent ends", isPatient: true)
        #expect(impatient.exitWait == nil)
        var ended = running
        ended.workloadEnded(reason: "killed")
        #expect(ended.exitWait == nil && !ended.isNeeded)
        #expect(running.sourceIsGone() == .abandoned)
        #expect(running.exitWait == nil && !running.isNeeded)

        var loaded = DestinationMachine.loaded()
        _ = loaded.exit(reason: "the agent ends", isPatient: true)
        #expect(loaded.exitWait == .word && !loaded.isNeeded)
        _ = loaded.linkLost(reason: "reset")
        #expect(loaded.exitWait == .source && loaded.isNeeded)
        loaded.exitOverdue(.source)
        #expect(loaded.exitWait == .word)
        loaded.exitOverdue(.word)
        #expect(loaded.exitWait == nil)
    }

    @Test("lets the operator cancel once its source is gone, and still answers that source")
    func cancelWithoutSource() {
        for startsStopped in [false, true] {
            var machine = DestinationMachine.loaded(startsStopped: startsStopped)
            if startsStopped { _ = machine.run(first) }
            guard case .refuse = machine.migrateCancel() else { Issue.record("its source can cancel"); return }
            _ = machine.linkLost(reason: "reset")
            #expect(machine.migrateCancel() == .done([]))
            #expect(machine.state == .cancelled && machine.hasGivenUp && machine.mayLeave && machine.isRemembered)
            #expect(machine.rejoin() == .welcome([]))
            let answer = DestinationAction.send(.startFailed(first.token, reason: "the migration was cancelled"))
            #expect(machine.run(first) == [answer])
            #expect(machine.cancel(first.token) == [.send(.cancelled(first.token))])
            _ = machine.bye()
            #expect(!machine.isRemembered)
        }
    }

    @Test("answers a source that it no longer waits for")
    func lateSource() {
        var machine = DestinationMachine.loaded()
        _ = machine.cancel(RunToken.none)
        _ = machine.linkLost(reason: "reset")
        #expect(machine.awaitsBye && !machine.mayLeave)
        machine.sourceGivenUp()
        #expect(!machine.awaitsBye && machine.mayLeave && machine.hasGivenUp && machine.state == .cancelled)
        #expect(machine.rejoin() == .welcome([]))
        #expect(machine.cancel(RunToken.none) == [.send(.cancelled(RunToken.none))])
    }

    @Test("asks for another RUN on the next cont, and answers cont with the outcome")
    func contAfterRefusal() {
        var machine = DestinationMachine.refused()
        #expect(machine.cont() == .requestStart)
        #expect(machine.cont() == .waits)
        var other = machine
        #expect(machine.run(second) == [.acquire(second)])
        #expect(machine.acquired() == [.start(second)])
        #expect(machine.started() == [.send(.running(second.token)), .contSucceeded])

        let reason = "cannot start the workload: disk is locked; the control link broke: reset"
        #expect(other.linkLost(reason: "reset") == [.contFailed(reason: reason)])
        #expect(other.state == .postcopyDevice)
        #expect(
            other.cont()
                == .failed(
                    reason: "cannot start the workload: disk is locked; the link to ask the source again is gone"
                )
        )
    }

    @Test("with --stopped starts after both RUN and cont, in either order")
    func startsStopped() {
        var machine = DestinationMachine.loaded(startsStopped: true)
        #expect(machine.run(first) == [])
        #expect(machine.state == .postcopyDevice && !machine.isCommitted)
        // The source that sent RUN does not run the workload, with or without a link.
        #expect(machine.linkLost(reason: "reset") == [])
        #expect(machine.cont() == .acquire(first))
        #expect(machine.acquired() == [.start(first)])
        #expect(machine.started() == [.contSucceeded])
        #expect(machine.state == .postcopyPaused)

        machine = .active(startsStopped: true)
        #expect(machine.cont() == .waits)
        _ = machine.listen()
        _ = machine.devices()
        _ = machine.ping(9)
        _ = machine.devicesLoaded()
        #expect(machine.run(first) == [.acquire(first)])
        #expect(machine.acquireFailed(reason: "locked") == [.undo(first)])
        #expect(
            machine.undone() == [
                .send(.startFailed(first.token, reason: "locked")),
                .contFailed(reason: "cannot start the workload: locked"),
            ]
        )
    }

    @Test("fails a waiting cont with the reason when the link breaks before RUN")
    func contWithoutRun() {
        var machine = DestinationMachine()
        #expect(machine.cont() == .failed(reason: "there is nothing to start; run migrate-incoming first"))
        machine = .loaded(startsStopped: true)
        #expect(machine.cont() == .waits)
        #expect(machine.linkLost(reason: "reset") == [.contFailed(reason: "the control link broke: reset")])
        // A RUN may still be under way, so the destination waits for it.
        #expect(machine.state == .postcopyDevice && !machine.mayLeave)
        #expect(machine.cont() == .failed(reason: "the control link broke: reset"))
        #expect(machine.rejoin() == .welcome([]))
        #expect(machine.run(first) == [])
        #expect(machine.cont() == .acquire(first))
    }

    @Test("fails if a device does not load, and reports it to the source")
    func deviceFails() {
        var machine = DestinationMachine.active()
        _ = machine.listen()
        _ = machine.devices()
        _ = machine.ping(9)
        #expect(
            machine.deviceLoadFailed(device: "clock", reason: "newer") == [
                .send(.devicesFailed(device: "clock", reason: "newer")), .closeLink(reason: "newer"),
            ]
        )
        #expect(machine.state == .failed && machine.mayLeave)
    }

    @Test("stays for the next source when one is refused or gone before READY")
    func beforeReady() {
        var machine = DestinationMachine()
        #expect(machine.hello() == [.violation("HELLO where no migration is awaited")])
        _ = machine.migrateIncoming()
        _ = machine.hello()
        #expect(
            machine.memoryRefused(reason: "2 GiB are too much") == [
                .send(.refused(reason: "2 GiB are too much")), .closeLink(reason: "2 GiB are too much"),
            ]
        )
        #expect(machine.state == .setup)
        #expect(machine.hello() == [.prepareMemory])
        #expect(machine.linkLost(reason: "reset") == [])
        #expect(machine.hello() == [.violation("memory is still being prepared for a link that broke; try again")])
        #expect(machine.memoryPrepared() == [.discardMemory])
        #expect(machine.hello() == [.prepareMemory])
        #expect(machine.memoryPrepared() == [.send(.ready)])
    }

    @Test("keeps running without a link, and completes once all pages are here")
    func lossWhileRunning() {
        var machine = DestinationMachine.running()
        #expect(machine.linkLost(reason: "reset") == [])
        #expect(machine.state == .postcopyPaused && machine.isCommitted)
        #expect(machine.allPagesResident() == [])
        #expect(machine.state == .completed)

        machine = .running()
        _ = machine.allPagesResident()
        #expect(machine.state == .postcopyActive)
        #expect(machine.linkLost(reason: "reset") == [])
        #expect(machine.state == .completed)
    }

    @Test("shows postcopy-active before completed if all pages are here when it starts")
    func pagesBeforeStart() {
        var machine = DestinationMachine.loaded()
        #expect(machine.complete() == [])
        #expect(machine.allPagesResident() == [])
        _ = machine.run(first)
        _ = machine.acquired()
        #expect(machine.started() == [.send(.running(first.token)), .proceed])
        #expect(machine.state == .postcopyActive)
        #expect(machine.proceed() == [.send(.completeAck)])
        #expect(machine.state == .completed)
        #expect(machine.proceed() == [])
    }

    @Test("treats a message out of order as a violation")
    func outOfOrder() {
        var machine = DestinationMachine.active()
        #expect(machine.devices() == [.violation("DEVICES out of order")])
        machine = .active()
        #expect(machine.ping(1) == [.violation("PING out of order")])
        machine = .loaded()
        #expect(machine.listen() == [.violation("LISTEN out of order")])
        machine = .active()
        #expect(machine.complete() == [.violation("COMPLETE out of order")])
        machine = .running()
        #expect(machine.bye() == [.violation("BYE before COMPLETE_ACK")])
        #expect(machine.state == .postcopyPaused)
    }

    @Test("ends a workload whose pages never arrive only on command, and never promises that it did not run")
    func sourceIsGone() {
        var machine = DestinationMachine.running()
        #expect(machine.sourceIsGone() == .refuse(reason: "the link to the source stands: the source is not gone"))
        _ = machine.linkLost(reason: "cut")
        guard case .refuse(let reason) = machine.migrateCancel() else { return _ = Issue.record("cancelled") }
        #expect(reason.hasSuffix("pageferry-source-gone"))
        let token = machine.startedToken
        #expect(machine.sourceIsGone() == .abandoned)
        #expect(machine.state == .failed && machine.mayLeave && !machine.isCommitted && !machine.owesPromise)
        #expect(machine.startedToken == token && token != nil)
        #expect(machine.rejoin() == .refuse(reason: "no migration can be rejoined here", []))
        #expect(machine.allPagesResident() == [])
        machine = DestinationMachine.loaded()
        _ = machine.linkLost(reason: "cut")
        #expect(
            machine.sourceIsGone()
                == .refuse(reason: "the workload has not run here; run migrate_cancel")
        )
    }

    @Test("drops an incoming migration when the operator cancels, but none that its source may have started")
    func operatorCancels() {
        let reason = SwitchoverFailure.cancelled.description
        let nothing = DestinationCancelAnswer.refuse(
            reason: "no migration is under way here: the destination waits for a source"
        )
        var machine = DestinationMachine()
        #expect(machine.migrateCancel() == nothing)
        _ = machine.migrateIncoming()
        #expect(machine.migrateCancel() == nothing)
        _ = machine.hello()
        #expect(machine.migrateCancel() == .done([.closeLink(reason: reason)]))
        #expect(machine.memoryPrepared() == [.discardMemory])
        #expect(machine.state == .setup)
        machine = .active()
        #expect(machine.migrateCancel() == .done([.closeLink(reason: reason)]))
        #expect(machine.state == .cancelled)
        #expect(machine.linkLost(reason: "late") == [])
        machine = .active()
        _ = machine.listen()
        _ = machine.devices()
        _ = machine.ping(9)
        #expect(machine.cont() == .waits)
        #expect(machine.migrateCancel() == .done([.closeLink(reason: reason), .contFailed(reason: reason)]))
        #expect(machine.devicesLoaded() == [])
        #expect(machine.hasGivenUp)
        for var machine in [DestinationMachine.loaded(), .running(), .refused()] {
            let before = machine
            guard case .refuse = machine.migrateCancel() else {
                Issue.record("cancelled in \(machine.state)")
                continue
            }
            #expect(machine == before)
        }
    }
}

import Identity
import Switchover

/// An event of a source: one of its machine, or one of the store that it uses.
enum SourceEvent: Hashable {
    case migrate, startPostcopy, migrateContinue, cancel, recover, retryResume
    /// The time to ask the unreachable lease again has come.
    case leaseDue
    case cancelOverdue
    case destinationIsGone(hasRun: Bool)
    case linkLost
    case allPagesSent
    /// The store carries out the request of an operation.
    case storeDecides(SourceOperation)
    case ended(SourceOperation, Outcome)
    case received(DestinationMessage)
    /// The agent, which was told to exit, exits, since nothing holds it.
    case ends
}

/// The outcome of an operation.
enum Outcome: Hashable {
    case success, failure
    /// The lease's store could not be reached, and nothing was written.
    case unreachable
    /// The lease's store did not answer in time, and may still carry out the request.
    case silent
    /// The workload was started, and has ended by itself.
    case dead
}

/// An operation that a source's driver carries out for an action, and whose end it reports.
enum SourceOperation: Hashable {
    case connect(LinkNumber), redial(LinkNumber), resync(LinkNumber)
    case proceed, prepare, stop, save, releaseLocks, resume
    case seizeLease(RunGrant)
    /// The store has decided, but the driver has not told the machine yet.
    case seizeDecided(Bool)
    case regainLease(RunToken)
    /// The driver has read the newest record, and is about to write over it.
    case regainWrites(RunToken, over: Store.Record)
    case regainDecided(Bool)

    /// Whether the operation may be about to end a pause of the migration.
    var isDeciding: Bool {
        switch self {
        case .seizeLease, .seizeDecided, .resume: true
        case .connect, .redial, .proceed, .prepare, .stop, .save, .releaseLocks, .resync, .regainLease, .regainWrites,
            .regainDecided:
            false
        }
    }

    /// Whether the workload's process must do something for the operation.
    var asksWorkload: Bool {
        switch self {
        case .prepare, .stop, .save, .releaseLocks, .resume: true
        case .connect, .redial, .proceed, .resync, .seizeLease, .seizeDecided, .regainLease, .regainWrites,
            .regainDecided:
            false
        }
    }

    /// The link to which the operation belongs; nil if it belongs to none.
    var link: LinkNumber? {
        switch self {
        case .connect(let link), .redial(let link), .resync(let link): link
        case .proceed, .prepare, .stop, .save, .releaseLocks, .resume, .seizeLease, .seizeDecided, .regainLease,
            .regainWrites,
            .regainDecided:
            nil
        }
    }
}

/// An event of a destination: one of its machine, or one of the store that it uses.
enum DestinationEvent: Hashable {
    case cont
    case linkLost
    case allPagesResident
    case accepted
    case sourceGivenUp
    case storeDecides(DestinationOperation)
    case ended(DestinationOperation, Outcome)
    case received(SourceMessage)
    /// The agent is told to exit, so that nothing starts any more.
    case leaves
    /// The time for something that the exit waits for is over.
    case exitOverdue(ExitWait)
    /// The agent exits, since nothing holds it.
    case ends
    /// Another migration takes the place of a finished one.
    case makesWay
    case migrateCancel
    /// The operator says that the source is gone for good.
    case sourceIsGone
}

/// An operation that a destination's driver carries out for an action, and whose end it reports.
enum DestinationOperation: Hashable {
    case proceed, prepareMemory, loadDevices, acquire, start, undo
    case commitLease(RunGrant)
    /// The store has decided, but the driver has not told the machine yet.
    case commitDecided(Bool)
    case returnLease(RunGrant)
    case returnDecided

    var isOfLease: Bool {
        switch self {
        case .commitLease, .commitDecided, .returnLease, .returnDecided: true
        case .proceed, .prepareMemory, .loadDevices, .acquire, .start, .undo: false
        }
    }
}

/// An event beside the walked migration: another migration begins, or a workload of the same name elsewhere.
enum ThirdEvent: Hashable {
    /// A workload that was taken back, or has arrived, is stopped to move on to a third host, and RUN is sent.
    case moves(from: Side)
    /// The third host wins the lease, if there is one, and runs the workload.
    case commits
    /// The third host promises that nothing starts there, and the workload resumes where it was.
    case refuses
    /// The operator knows that the lease's owner is gone, and runs the command that Pageferry prints.
    case takesOver
    /// A workload of the same name begins on the third host, since the lease is released.
    case begins
}

/// The reactions of both sides to events: those of the shipped machines, or of a mutant.
struct Behaviour: Sendable {
    typealias Source = @Sendable (inout SourceMachine, SourceEvent, RunGrant) -> [SourceAction]
    typealias Destination = @Sendable (inout DestinationMachine, DestinationEvent) -> [DestinationAction]

    /// The source's reaction; the `RunGrant` is the fresh one that a driver would draw for this event.
    var source: Source
    var destination: Destination

    static let shipped = Behaviour(source: shippedSource, destination: shippedDestination)

    /// A destination of an earlier release, without the capability START_RESULT, and a source that knows that.
    static let older = Behaviour(
        source: { machine, event, fresh in
            guard case .received(.ready) = event else { return shippedSource(&machine, event, fresh) }
            return machine.ready(from: instance, tellsStart: false)
        },
        destination: { machine, event in
            shippedDestination(&machine, event).filter { action in
                switch action {
                case .send(.running), .send(.startFailed), .send(.startRequest), .send(.cancelled): false
                default: true
                }
            }
        }
    )

    static let instance = InstanceID(12)
    static let ping: UInt64 = 7
}

private func shippedSource(_ machine: inout SourceMachine, _ event: SourceEvent, _ fresh: RunGrant) -> [SourceAction] {
    switch event {
    case .migrate:
        if case .connect(let link) = machine.migrate() { return [.connect(link)] }
        return []
    case .startPostcopy:
        return machine.startPostcopy() == .prepare ? [.prepare] : []
    case .cancel:
        switch machine.cancel() {
        case .succeeded: return [.cancelSucceeded]
        case .waits(let actions): return actions
        case .refuse(let reason): return [.cancelFailed(reason: reason)]
        }
    case .recover:
        if case .connect(let link) = machine.recover() { return [.connect(link)] }
        return []
    case .cancelOverdue: return machine.cancelOverdue()
    case .migrateContinue: return machine.migrateContinue() == .save ? [.save] : []
    case .leaseDue: return machine.leaseDue()
    case .destinationIsGone(let hasRun):
        return machine.destinationIsGone(hasRun: hasRun) == .takeBack ? [.resume] : []
    case .retryResume:
        return machine.retryResume() == .resume ? [.resume] : []
    case .linkLost: return machine.linkLost(reason: "lost")
    case .allPagesSent: return machine.allPagesSent()
    case .storeDecides, .ends: return []
    case .ended(let operation, let outcome): return ended(&machine, operation, outcome, fresh)
    case .received(.ready): return machine.ready(from: Behaviour.instance)
    case .received(.refused(let reason)): return machine.refused(reason: reason)
    case .received(.welcome): return machine.welcomed(by: Behaviour.instance)
    case .received(.pong(let number)): return machine.pong(number, from: Behaviour.instance)
    case .received(.devicesFailed(let device, let reason)): return machine.devicesFailed(device: device, reason: reason)
    case .received(.running(let token)): return machine.running(token, from: Behaviour.instance)
    case .received(.startFailed(let token, let reason)):
        return machine.startFailed(token, reason: reason, from: Behaviour.instance)
    case .received(.cancelled(let token)): return machine.cancelled(token, from: Behaviour.instance)
    case .received(.startRequest): return machine.startRequested(fresh: fresh)
    case .received(.completeAck): return machine.completeAcknowledged()
    }
}

private func ended(
    _ machine: inout SourceMachine,
    _ operation: SourceOperation,
    _ outcome: Outcome,
    _ fresh: RunGrant
) -> [SourceAction] {
    switch (operation, outcome) {
    case (.connect, .success), (.redial, .success): return machine.linkUp()
    case (.connect, _): return machine.linkLost(reason: "no route")
    case (.redial, _):
        machine.redialGivenUp()
        return []
    case (.proceed, _): return machine.proceed()
    case (.prepare, .success): return machine.prepared()
    case (.stop, .success): return machine.stopped()
    case (.prepare, _), (.stop, _): return machine.stopFailed(reason: "stuck")
    case (.save, .success): return machine.saved(ping: Behaviour.ping)
    case (.save, _): return machine.saveFailed(device: "clock", reason: "broken")
    case (.releaseLocks, .success): return machine.released(fresh: fresh)
    case (.releaseLocks, _): return machine.releaseFailed(reason: "stale")
    case (.resume, .success): return machine.resumed()
    case (.resume, _): return machine.resumeFailed(reason: "locked")
    case (.resync, _): return machine.resynced()
    case (.seizeLease, _): return machine.leaseUnreachable(reason: "no store")
    case (.seizeDecided, .success): return machine.leaseTaken()
    case (.seizeDecided, _): return machine.leaseRefused()
    case (.regainDecided(true), _): return machine.leaseRegained(fresh: fresh)
    case (.regainDecided(false), _): return machine.leaseSuperseded(reason: "another's")
    case (.regainLease, _), (.regainWrites, _): return []
    }
}

private func shippedDestination(_ machine: inout DestinationMachine, _ event: DestinationEvent) -> [DestinationAction] {
    switch event {
    case .cont:
        switch machine.cont() {
        case .succeeded: return [.contSucceeded]
        case .failed(let reason): return [.contFailed(reason: reason)]
        case .waits: return []
        case .acquire(let grant): return [.acquire(grant)]
        case .requestStart: return [.send(.startRequest)]
        }
    case .linkLost: return machine.linkLost(reason: "lost")
    case .allPagesResident: return machine.allPagesResident()
    case .accepted:
        switch machine.rejoin() {
        case .welcome(let actions): return actions + [.send(.welcome)]
        case .refuse(let reason, let actions): return actions + [.send(.refused(reason: reason))]
        }
    case .sourceGivenUp:
        machine.sourceGivenUp()
        return []
    case .migrateCancel:
        if case .done(let actions) = machine.migrateCancel() { return actions }
        return []
    case .sourceIsGone:
        _ = machine.sourceIsGone()
        return []
    case .leaves: return machine.exit(reason: "the agent ends", isPatient: true)
    case .exitOverdue(let wait):
        machine.exitOverdue(wait)
        return []
    case .storeDecides, .ends, .makesWay: return []
    case .ended(let operation, let outcome): return ended(&machine, operation, outcome)
    case .received(.hello): return machine.hello()
    case .received(.rejoin): return [.violation("HELLO within a link")]
    case .received(.listen): return machine.listen()
    case .received(.devices): return machine.devices()
    case .received(.ping(let number)): return machine.ping(number)
    case .received(.run(let grant)): return machine.run(grant)
    case .received(.cancel(let token)): return machine.cancel(token)
    case .received(.complete): return machine.complete()
    case .received(.bye): return machine.bye()
    }
}

private func ended(
    _ machine: inout DestinationMachine,
    _ operation: DestinationOperation,
    _ outcome: Outcome
) -> [DestinationAction] {
    switch (operation, outcome) {
    case (.proceed, _): return machine.proceed()
    case (.prepareMemory, .success): return machine.memoryPrepared()
    case (.prepareMemory, _): return machine.memoryRefused(reason: "small")
    case (.loadDevices, .success): return machine.devicesLoaded()
    case (.loadDevices, _): return machine.deviceLoadFailed(device: "clock", reason: "newer")
    case (.acquire, .success): return machine.acquired()
    case (.acquire, _): return machine.acquireFailed(reason: "locked")
    case (.commitDecided, .success): return machine.leaseCommitted()
    case (.commitLease, _), (.commitDecided, _): return machine.leaseRefused(reason: "not ours")
    case (.start, .success): return machine.started()
    case (.start, .dead): return machine.startEnded(reason: "killed")
    case (.start, _): return machine.startFailed(reason: "no cpu")
    case (.undo, _): return machine.undone()
    case (.returnDecided, _): return machine.leaseReturned()
    case (.returnLease, _): return []
    }
}

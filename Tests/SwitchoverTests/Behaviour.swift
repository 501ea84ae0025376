import Switchover

/// What can happen to a source: one event of its machine, or of the store that it has asked.
enum SourceEvent: Hashable {
    case migrate, startPostcopy, cancel, recover, retryResume
    case cancelOverdue
    case destinationIsGone(hasRun: Bool)
    case linkLost
    case allPagesSent
    /// The store carries out what an operation has asked of it.
    case storeDecides(SourceOperation)
    case ended(SourceOperation, Outcome)
    case received(DestinationMessage)
    /// The agent was told to end, and nothing holds it.
    case ends
}

/// How an operation ended.
enum Outcome: Hashable {
    case success, failure
    /// Of the lease's store: nothing was written.
    case unreachable
    /// Of the lease's store: no answer came in time, and what was asked may still be carried out.
    case silent
    /// Of a start: the workload was started, and has ended by itself.
    case dead
}

/// What a source's driver does after an action, and reports when it has ended.
enum SourceOperation: Hashable {
    case connect(LinkNumber), redial(LinkNumber), resync(LinkNumber)
    case proceed, stop, save, releaseLocks, resume
    case seizeLease(RunGrant)
    /// The store has decided, the driver has not told the machine yet.
    case seizeDecided(Bool)
    case regainLease(RunToken)
    /// The driver has read the newest record, and is about to write over it.
    case regainWrites(RunToken, over: Store.Record)
    case regainDecided(Bool)

    /// A pause of the migration is about to end.
    var isDeciding: Bool {
        switch self {
        case .seizeLease, .seizeDecided, .resume: true
        case .connect, .redial, .proceed, .stop, .save, .releaseLocks, .resync, .regainLease, .regainWrites,
            .regainDecided:
            false
        }
    }

    /// The link that it belongs to; nil if to none.
    var link: LinkNumber? {
        switch self {
        case .connect(let link), .redial(let link), .resync(let link): link
        case .proceed, .stop, .save, .releaseLocks, .resume, .seizeLease, .seizeDecided, .regainLease, .regainWrites,
            .regainDecided:
            nil
        }
    }
}

/// What can happen to a destination: one event of its machine, or of the store that it has asked.
enum DestinationEvent: Hashable {
    case cont
    case linkLost
    case allPagesResident
    case accepted
    case sourceGivenUp
    case storeDecides(DestinationOperation)
    case ended(DestinationOperation, Outcome)
    case received(SourceMessage)
    /// The agent was told to end: nothing starts any more.
    case leaves
    /// It ends, as nothing holds it.
    case ends
    /// Another migration takes the place of one that is over.
    case makesWay
    case migrateCancel
}

/// What a destination's driver does after an action, and reports when it has ended.
enum DestinationOperation: Hashable {
    case proceed, prepareMemory, loadDevices, acquire, start, undo
    case commitLease(RunGrant)
    /// The store has decided, the driver has not told the machine yet.
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

/// What can happen beside the migration that is walked: another one begins, or a workload of that name elsewhere.
enum ThirdEvent: Hashable {
    /// A workload that was taken back, or has come, is moved on to a third host: it is stopped, and RUN is sent.
    case moves(from: Side)
    /// The third host wins the lease, if there is one, and runs the workload.
    case commits
    /// The third host promises that nothing starts there: the workload runs on where it was.
    case refuses
    /// The operator knows that the lease's owner is gone, and does what the product says.
    case takesOver
    /// A workload of that name begins on the third host: the lease is released.
    case begins
}

/// How the two sides answer events: the machines that ship, or a mutant around them.
struct Behaviour: Sendable {
    typealias Source = @Sendable (inout SourceMachine, SourceEvent, RunGrant) -> [SourceAction]
    typealias Destination = @Sendable (inout DestinationMachine, DestinationEvent) -> [DestinationAction]

    /// The `RunGrant` is the fresh one that a driver would draw for this event.
    var source: Source
    var destination: Destination

    static let shipped = Behaviour(source: shippedSource, destination: shippedDestination)

    /// A destination of an earlier release, without the capability START_RESULT, and a source that knows it.
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

    static let instance = InstanceID(high: 1, low: 2)
    static let ping: UInt64 = 7
}

private func shippedSource(_ machine: inout SourceMachine, _ event: SourceEvent, _ fresh: RunGrant) -> [SourceAction] {
    switch event {
    case .migrate:
        if case .connect(let link) = machine.migrate() { return [.connect(link)] }
        return []
    case .startPostcopy:
        return machine.startPostcopy() == .stop ? [.stop] : []
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
    case (.stop, .success): return machine.stopped()
    case (.stop, _): return machine.stopFailed(reason: "stuck")
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
    case .leaves: return machine.prohibitStart(reason: "the agent ends")
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

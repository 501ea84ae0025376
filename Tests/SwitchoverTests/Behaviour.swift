import Switchover

/// What can happen to a source: one event of its machine.
enum SourceEvent: Hashable {
    case migrate, startPostcopy, retryResume
    case linkLost
    case allPagesSent
    case ended(SourceOperation, succeeded: Bool)
    case received(DestinationMessage)
}

/// What a source's driver does after an action, and reports when it has ended.
enum SourceOperation: Hashable {
    case connect, proceed, stop, save, releaseLocks, resume
}

/// What can happen to a destination: one event of its machine.
enum DestinationEvent: Hashable {
    case cont
    case linkLost
    case allPagesResident
    case ended(DestinationOperation, succeeded: Bool)
    case received(SourceMessage)
}

/// What a destination's driver does after an action, and reports when it has ended.
enum DestinationOperation: Hashable {
    case proceed, prepareMemory, loadDevices, acquire, start, undo
}

/// How the two sides answer events: the machines that ship, or a mutant around them.
struct Behaviour: Sendable {
    typealias Source = @Sendable (inout SourceMachine, SourceEvent, RunGrant) -> [SourceAction]
    typealias Destination = @Sendable (inout DestinationMachine, DestinationEvent) -> [DestinationAction]

    /// The `RunGrant` is the fresh one that a driver would draw for this event.
    var source: Source
    var destination: Destination

    static let shipped = Behaviour(source: shippedSource, destination: shippedDestination)

    static let instance = InstanceID(high: 1, low: 2)
    static let ping: UInt64 = 7
}

private func shippedSource(_ machine: inout SourceMachine, _ event: SourceEvent, _ fresh: RunGrant) -> [SourceAction] {
    switch event {
    case .migrate:
        return machine.migrate() == .connect ? [.connect] : []
    case .startPostcopy:
        return machine.startPostcopy() == .stop ? [.stop] : []
    case .retryResume:
        return machine.retryResume() == .resume ? [.resume] : []
    case .linkLost: return machine.linkLost(reason: "lost")
    case .allPagesSent: return machine.allPagesSent()
    case .ended(.connect, true): return machine.linkUp()
    case .ended(.connect, false): return machine.linkLost(reason: "no route")
    case .ended(.proceed, _): return machine.proceed()
    case .ended(.stop, true): return machine.stopped()
    case .ended(.stop, false): return machine.stopFailed(reason: "stuck")
    case .ended(.save, true): return machine.saved(ping: Behaviour.ping)
    case .ended(.save, false): return machine.saveFailed(device: "clock", reason: "broken")
    case .ended(.releaseLocks, true): return machine.released(fresh: fresh)
    case .ended(.releaseLocks, false): return machine.releaseFailed(reason: "stale")
    case .ended(.resume, true): return machine.resumed()
    case .ended(.resume, false): return machine.resumeFailed(reason: "locked")
    case .received(.ready): return machine.ready(from: Behaviour.instance)
    case .received(.refused(let reason)): return machine.refused(reason: reason)
    case .received(.pong(let number)): return machine.pong(number, from: Behaviour.instance)
    case .received(.devicesFailed(let device, let reason)): return machine.devicesFailed(device: device, reason: reason)
    case .received(.running(let token)): return machine.running(token, from: Behaviour.instance)
    case .received(.startFailed(let token, let reason)):
        return machine.startFailed(token, reason: reason, from: Behaviour.instance)
    case .received(.startRequest): return machine.startRequested(fresh: fresh)
    case .received(.completeAck): return machine.completeAcknowledged()
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
    case .ended(.proceed, _): return machine.proceed()
    case .ended(.prepareMemory, true): return machine.memoryPrepared()
    case .ended(.prepareMemory, false): return machine.memoryRefused(reason: "small")
    case .ended(.loadDevices, true): return machine.devicesLoaded()
    case .ended(.loadDevices, false): return machine.deviceLoadFailed(device: "clock", reason: "newer")
    case .ended(.acquire, true): return machine.acquired()
    case .ended(.acquire, false): return machine.acquireFailed(reason: "locked")
    case .ended(.start, true): return machine.started()
    case .ended(.start, false): return machine.startFailed(reason: "no cpu")
    case .ended(.undo, _): return machine.undone()
    case .received(.hello): return machine.hello()
    case .received(.listen): return machine.listen()
    case .received(.devices): return machine.devices()
    case .received(.ping(let number)): return machine.ping(number)
    case .received(.run(let grant)): return machine.run(grant)
    case .received(.complete): return machine.complete()
    case .received(.bye): return machine.bye()
    }
}

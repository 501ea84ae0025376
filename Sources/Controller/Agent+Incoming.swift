import Connections
import Guest
public import LinuxSystem
import Logging
import QMP
import Switchover

/// Workloads that arrive, and those that have arrived and go on.
extension Agent {
    func migrateIncoming(_ command: QMPCommand) async throws {
        try command.allowOnly("uri", "channels", "exit-on-error")
        let exits = try command.booleanIfPresent("exit-on-error") ?? true
        try await listen(at: command.migrationAddress(), exitsOnError: exits)
    }

    /// `migrate-incoming`: waits at an address for a workload.
    ///
    /// - Parameters:
    ///   - exitsOnError: whether a migration that fails here ends the agent.
    ///   - waitsOn: whether the agent waits for the next source instead: the failed one has its workload, or never had one.
    /// - Returns: the address, with the port that the kernel chose.
    @discardableResult
    public func listen(
        at address: SocketAddress,
        exitsOnError: Bool,
        waitsOn: Bool = false
    ) async throws -> SocketAddress {
        guard let landing else { throw CommandRefused(reason: configuration.arrivalRefusal) }
        if ownWorkload != nil {
            // What has moved away may come back; its memory here is let go then.
            guard await outgoing?.snapshot().state == .completed else {
                throw CommandRefused(reason: "this agent holds a workload and takes no other")
            }
        }
        try refuseOpenAddress(address)
        await promoteSuccessor()
        let failed = successor == nil ? nil : incoming
        let earlier = successor ?? incoming
        let replaces = ownWorkload == nil
        if let earlier, replaces, await !earlier.giveWay() {
            let state = await earlier.snapshot().state.rawValue
            throw CommandRefused(reason: "an incoming migration was begun before, it is \(state)")
        }
        // One that has ended lets go of its address, which may be wanted; one that listens does so once this one does too.
        if let earlier, await earlier.snapshot().state != .setup { await earlier.retire() }
        for session in self.earlier + (earlier.map { [$0] } ?? []) where await session.isRetired {
            if await session.listens(atPortOf: address) { await session.stopListening() }
        }
        guard (successor ?? incoming) === earlier else {
            throw CommandRefused(reason: "another client has just begun an incoming migration")
        }
        guard !isQuitting else { throw CommandRefused(reason: "this agent ends") }
        let session: DestinationSession
        do {
            session = try makeIncoming(landing, exitsOnError: exitsOnError, waitsOn: waitsOn) { [logger] in
                try LaneAcceptor(at: address, logger: logger, onArrival: $0)
            }
        } catch {
            await earlier?.stay()
            throw error
        }
        (incoming, successor) = (session, nil)
        outgoing = nil
        ownWorkload = nil
        regions = []
        endReason = nil
        for session in [earlier, failed].compactMap(\.self) {
            await session.retire()
            keep(session)
        }
        try await session.begin()
        let bound = await session.snapshot().address
        if !address.isLocal {
            logger.warning("\(bound) hands out the workload's memory to whoever reaches it, unauthenticated")
        }
        return bound
    }

    private nonisolated func makeIncoming(
        _ landing: any Landing,
        exitsOnError: Bool,
        waitsOn: Bool,
        _ makeAcceptor: @escaping DestinationSession.MakeAcceptor
    ) throws -> DestinationSession {
        try DestinationSession(
            landing: landing,
            acceptor: makeAcceptor,
            instance: instance,
            settings: DestinationSession.Settings(
                waitsOn: waitsOn,
                startsStopped: configuration.startsStopped,
                prefetch: configuration.prefetch,
                faultThreads: configuration.faultThreads,
                lease: lease,
                peerTimeout: configuration.peerTimeout,
                recoveryTime: configuration.recoveryTime
            ),
            formers: formers,
            logger: logger,
            sink: sink,
            observer: DestinationSession.Observer(
                onAccept: { Task { [weak self] in await self?.promoteSuccessor() } },
                onWaitOn: { [weak self] failed, acceptor in
                    guard let self else { return acceptor.close() }
                    // At once: who connects from now on is the successor's.
                    let next = try? makeIncoming(landing, exitsOnError: exitsOnError, waitsOn: waitsOn) {
                        acceptor.deliver(to: $0)
                        return acceptor
                    }
                    guard let next else { return }
                    Task { await self.adopt(next, after: failed) }
                },
                onEnd: { [ending, logger] failure in
                    guard let failure else { return }
                    logger.error("the incoming migration failed: \(failure)")
                    if exitsOnError { ending.yield(.failed(reason: failure)) }
                }
            )
        )
    }

    /// Has a session wait for the next source, after one whose migration has failed.
    private func adopt(_ next: DestinationSession, after failed: DestinationSession) async {
        await promoteSuccessor()
        guard !isQuitting, successor == nil, incoming === failed else { return await next.retire() }
        successor = next
        // A session that has just been made is begun.
        try? await next.begin()
    }

    /// Once a source was taken, its session is the one that clients are told of.
    func promoteSuccessor() async {
        guard !isQuitting, let next = successor, await next.hasAccepted, successor === next else { return }
        let failed = incoming
        (incoming, successor) = (next, nil)
        guard let failed else { return }
        await failed.retire()
        keep(failed)
    }

    /// `migrate-recover`: waits for the source at an address, as that of a paused migration may be of no use any more.
    func migrateRecover(_ command: QMPCommand) async throws {
        try command.allowOnly("uri")
        let address = try SocketAddress(command.string("uri"))
        guard let incoming else { throw CommandRefused(reason: "no migration is paused here") }
        try refuseOpenAddress(address)
        _ = try await incoming.recover(at: address)
    }

    private func refuseOpenAddress(_ address: SocketAddress) throws(CommandRefused) {
        guard address.isLocal || configuration.isInsecure else {
            throw CommandRefused(
                reason: "\(address) can be reached from other hosts, and whoever reaches it can read and write the "
                    + "workload's memory; use 127.0.0.1, or start the agent with --insecure"
            )
        }
    }

    /// The workload that may move from here, with its memory: this agent's own, or one that has come with all of its memory.
    func movable() async throws -> (workload: any Workload, memory: [MemoryRegion]) {
        if !hasBegun {
            if let underWay { throw CommandRefused(reason: "\(underWay) is under way; try again when it has ended") }
            _ = try await ownership().get()
        }
        guard let incoming else {
            guard let ownWorkload else { throw CommandRefused(reason: "there is no workload here to migrate") }
            return (ownWorkload, regions)
        }
        guard await incoming.snapshot().state == .completed, let workload = await incoming.workload else {
            throw CommandRefused(
                reason: "the workload here is not complete, it is \(await incoming.snapshot().state.rawValue)"
            )
        }
        guard let memory = workload.ownMemory else {
            throw CommandRefused(reason: "the workload's memory is in another process, and cannot be moved from here")
        }
        guard workload.activity.isRunning else {
            throw CommandRefused(reason: "the workload is stopped; run cont first")
        }
        return (workload, memory)
    }

    /// Makes a workload that has come this agent's own. What is known of its migration stays with the session.
    func adopt(_ workload: any Workload, _ memory: [MemoryRegion], of arrival: DestinationSession) async throws {
        await arrival.retire()
        // Memory that is sent from here must be the kernel's again.
        await arrival.stops.joined()
        guard incoming === arrival else {
            throw CommandRefused(reason: "another client has just begun a migration")
        }
        watchEnd(of: workload)
        ownWorkload = workload
        endReason = nil
        regions = memory
        outgoing = nil
        keep(arrival)
        incoming = nil
    }

    /// Keeps a session that has retired for as long as it owes anybody an answer.
    private func keep(_ session: DestinationSession) {
        earlier.append(session)
        Task {
            await session.ended()
            earlier.removeAll { $0 === session }
        }
    }
}

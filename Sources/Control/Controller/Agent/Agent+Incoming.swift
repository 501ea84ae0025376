import Connections
import Guest
import Identity
package import LinuxSystem
import Logging
import QMP
import Switchover

/// Arriving workloads, and moving an arrived workload away again.
extension Agent {
    func migrateIncoming(_ command: QMPCommand) async throws {
        let exits = try command.booleanIfPresent("exit-on-error") ?? true
        let isProvisional = try command.booleanIfPresent("pageferry-provisional") ?? false
        let address = try command.migrationAddress()
        try requirePostcopy()
        if isProvisional, await waits(otherwiseThan: address) { return }
        if !isProvisional, let waiting = await addressOfCommand {
            throw QMPError.generic(
                "The incoming migration has already been started; this agent listens at \(waiting)"
            )
        }
        try await listen(at: address, exitsOnError: exits, isProvisional: isProvisional)
        if !isProvisional { await incoming?.noteCommand() }
    }

    /// Whether the agent already waits for a source in a way that a provisional address must not change.
    ///
    /// True if the agent listens at that address, or at an address that is not provisional.
    private func waits(otherwiseThan address: SocketAddress) async -> Bool {
        guard let waiting = successor ?? incoming else { return false }
        let snapshot = await waiting.snapshot()
        guard snapshot.state == .setup, snapshot.isListening else { return false }
        return !waiting.settings.isProvisional || snapshot.address == address
    }

    /// The address at which the agent waits for a source because a client has sent `migrate-incoming`, as the operator
    /// of that client expects; nil if the agent does not wait for that reason.
    private var addressOfCommand: SocketAddress? {
        get async {
            guard let waiting = successor ?? incoming, await waiting.listener.isCommanded else { return nil }
            return await waitingAddress
        }
    }

    /// The address at which the agent waits for a source; nil if it does not wait.
    private var waitingAddress: SocketAddress? {
        get async {
            guard let snapshot = await (successor ?? incoming)?.snapshot() else { return nil }
            return snapshot.state == .setup && snapshot.isListening ? snapshot.address : nil
        }
    }

    /// `migrate-incoming`: listens at an address for a source.
    ///
    /// - Parameters:
    ///   - address: the address for the source to dial; the kernel chooses the port if it is 0.
    ///   - exitsOnError: whether a migration that fails here ends the agent.
    ///   - waitsOn: whether the agent waits for the next source after a migration that failed before its workload ran
    ///     here; if so, every later address is listened at in that way too.
    ///   - isProvisional: whether the address serves one attempt to migrate, so that the next attempt may name another.
    /// - Returns: the address, with the port that the kernel chose.
    /// - Throws: why the agent cannot wait for a source: it has a workload or another migration, other hosts could
    ///   reach the address without `isInsecure`, or the kernel refuses the address.
    @discardableResult
    package func listen(
        at address: SocketAddress,
        exitsOnError: Bool,
        waitsOn: Bool = false,
        isProvisional: Bool = false
    ) async throws -> SocketAddress {
        guard let landing else { throw CommandRefused(reason: configuration.arrivalRefusal) }
        if ownWorkload != nil {
            // The own workload has moved away and may come back; its old memory here is freed then.
            guard await outgoing?.snapshot().state == .completed else {
                throw CommandRefused(reason: Agent.holdsWorkload)
            }
        }
        try refuseOpenAddress(address)
        await promoteSuccessor()
        let failed = successor == nil ? nil : incoming
        let earlier = successor ?? incoming
        let replaces = ownWorkload == nil
        if let earlier, replaces, await !earlier.giveWay() {
            throw CommandRefused(reason: Agent.arrives(await earlier.snapshot()))
        }
        // A finished session frees its address now, since the new session may want it. A session that still listens is
        // closed only after the new session listens.
        if let earlier, await earlier.snapshot().state != .setup { await earlier.retire() }
        for session in self.earlier + (earlier.map { [$0] } ?? []) where await session.isRetired {
            if await session.listens(atPortOf: address) { await session.stopListening() }
        }
        guard (successor ?? incoming) === earlier else {
            throw CommandRefused(
                reason: "another client has just begun an incoming migration; look again with query-migrate"
            )
        }
        guard !isQuitting else { throw CommandRefused(reason: "this agent is exiting") }
        let before = await waitingAddress
        let session: DestinationSession
        do {
            let ways = (exitsOnError: exitsOnError, waitsOn: waitsOn || self.waitsOn, isProvisional: isProvisional)
            session = try makeIncoming(landing, ways) { [logger] in
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
        if waitsOn { self.waitsOn = true }
        if let before, before != bound {
            logger.notice("listening at \(bound) as a client has asked, and no longer at \(before)")
        }
        if !address.isLocal {
            logger.warning(
                "\(bound) has no authentication: any host that reaches it can read and write the workload's memory"
            )
        }
        return bound
    }

    /// Why this agent accepts no other migration than the one that arrives, and what to do instead.
    private static func arrives(_ snapshot: DestinationSession.Status) -> String {
        switch snapshot.state {
        case .completed: holdsWorkload
        case .failed, .cancelled:
            "the last migration is \(snapshot.state.rawValue): \(snapshot.failureReason ?? "")"
        case .postcopyActive, .postcopyPaused, .postcopyRecoverSetup, .postcopyRecover:
            "a migration arrives here already, in \(snapshot.state.rawValue); wait until it ends, or choose another agent"
        case .none, .setup, .active, .preSwitchover, .device, .postcopyDevice, .cancelling:
            "a migration arrives here already, in \(snapshot.state.rawValue); wait until it ends, or run migrate_cancel at "
                + "its source"
        }
    }

    /// Why an agent with a workload accepts no other one, and what to do instead.
    private static let holdsWorkload =
        "this agent holds a workload and takes no other; send migrate-incoming to an agent without a workload"

    private nonisolated func makeIncoming(
        _ landing: any Landing,
        _ ways: (exitsOnError: Bool, waitsOn: Bool, isProvisional: Bool),
        _ makeAcceptor: @escaping DestinationSession.MakeAcceptor
    ) throws -> DestinationSession {
        try DestinationSession(
            landing: landing,
            acceptor: makeAcceptor,
            settings: DestinationSession.Settings(
                instance: instance,
                waitsOn: ways.waitsOn,
                isProvisional: ways.isProvisional,
                startsStopped: configuration.startsStopped,
                prefetch: configuration.prefetch,
                faultThreads: configuration.faultThreads,
                polling: configuration.polling,
                countsPlaces: configuration.countsPlaces,
                lease: lease,
                peerTimeout: configuration.peerTimeout,
                recoveryTime: configuration.recoveryTime,
                clock: configuration.clock
            ),
            formers: formers,
            logger: logger,
            sink: sink,
            observer: DestinationSession.Observer(
                onAccept: { Task { [weak self] in await self?.promoteSuccessor() } },
                onWaitOn: { [weak self] failed, acceptor in
                    guard let self else {
                        acceptor.close()
                        return false
                    }
                    // The acceptor is passed on before this call returns, so that every later connection reaches the
                    // next session.
                    do {
                        let next = try makeIncoming(landing, ways) {
                            acceptor.deliver(to: $0)
                            return acceptor
                        }
                        Task { await self.adopt(next, after: failed) }
                        return true
                    } catch {
                        logger.error("cannot wait for another source at \(acceptor.address): \(error)")
                        acceptor.close()
                        return false
                    }
                },
                onEnd: { [ending, logger] failure, hasStarted in
                    guard let failure else { return }
                    if ways.exitsOnError || hasStarted {
                        // The command line prints the reason when the process exits.
                        ending.yield(.failed(reason: Agent.incoming(failed: failure)))
                    } else {
                        logger.error("\(Agent.incoming(failed: failure))")
                    }
                }
            )
        )
    }

    /// Makes a session wait for the next source after a failed migration.
    private func adopt(_ next: DestinationSession, after failed: DestinationSession) async {
        await promoteSuccessor()
        guard !isQuitting, successor == nil, incoming === failed else { return await next.retire() }
        successor = next
        // A new session cannot refuse to begin.
        try? await next.begin()
    }

    /// Makes the next session `incoming` once it has accepted a source, so that clients see that migration.
    func promoteSuccessor() async {
        guard !isQuitting, let next = successor, await next.hasAccepted, successor === next else { return }
        let failed = incoming
        (incoming, successor) = (next, nil)
        guard let failed else { return }
        await failed.retire()
        keep(failed)
    }

    /// `migrate-recover`: listens for the source of a paused migration at another address.
    func migrateRecover(_ command: QMPCommand) async throws {
        let address = try command.uriAddress()
        guard let incoming else {
            throw CommandRefused(reason: "no migration is paused here; \(DestinationSession.whoRecovers)")
        }
        try refuseOpenAddress(address)
        _ = try await incoming.recover(at: address)
    }

    private func refuseOpenAddress(_ address: SocketAddress) throws(CommandRefused) {
        guard address.isLocal || configuration.isInsecure else {
            throw CommandRefused(
                reason: "\(address) can be reached from other hosts, and any of them can then read and write the "
                    + "workload's memory; use 127.0.0.1, or start the agent with --insecure"
            )
        }
    }

    /// The workload that can be moved from here, with its memory: this agent's own, or an arrived one whose pages are
    /// all here.
    ///
    /// - Throws: ``CommandRefused`` if there is none or it cannot be moved.
    func movable() async throws -> (workload: any Workload, memory: [SourceRegion]) {
        if !hasBegun {
            if let underWay { throw CommandRefused(reason: "\(underWay) is under way; try again when it has ended") }
            _ = try await ownership().get()
        }
        guard let incoming else {
            guard let ownWorkload else {
                throw CommandRefused(
                    reason: "there is no workload here to migrate; send migrate to the agent that has it"
                )
            }
            return (ownWorkload, regions)
        }
        guard await incoming.snapshot().state == .completed, let workload = await incoming.workload else {
            throw CommandRefused(
                reason:
                    "the workload has not arrived completely, it is \(await incoming.snapshot().state.rawValue); wait "
                    + "until query-migrate shows completed"
            )
        }
        guard let memory = workload.sourceMemory else {
            throw CommandRefused(reason: "the workload's memory is in another process and cannot be moved from here")
        }
        guard workload.activity.isRunning || workload.movesPaused else {
            throw CommandRefused(reason: "the workload is stopped; run cont first")
        }
        return (workload, memory)
    }

    /// Makes an arrived workload this agent's own.
    ///
    /// The session keeps what is known of the migration.
    ///
    /// - Parameters:
    ///   - workload: the arrived workload.
    ///   - memory: the workload's memory in this process.
    ///   - arrival: the session in which the workload arrived.
    /// - Throws: ``CommandRefused`` if another client has begun a migration meanwhile.
    func adopt(_ workload: any Workload, _ memory: [SourceRegion], of arrival: DestinationSession) async throws {
        await arrival.retire()
        // The memory must be unregistered from the userfaultfd before it is sent from here.
        await arrival.threads.partings.threads.joined()
        guard incoming === arrival else {
            throw CommandRefused(reason: "another client has just begun a migration; look again with query-migrate")
        }
        watchEnd(of: workload)
        ownWorkload = workload
        endReason = nil
        regions = memory
        outgoing = nil
        keep(arrival)
        incoming = nil
    }

    /// Keeps a retired session until it owes nobody an answer.
    private func keep(_ session: DestinationSession) {
        earlier.append(session)
        Task {
            await session.ended()
            earlier.removeAll { $0 === session }
        }
    }
}

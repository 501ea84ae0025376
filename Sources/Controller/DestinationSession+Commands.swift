import Connections
import LinuxSystem
import Logging
import PageProtocol
import Switchover

/// What clients ask of it, and its making way for the next.
extension DestinationSession {
    /// Whether another session may take this one's place: its migration has failed, or no source has come yet, and from
    /// now on none is taken.
    func giveWay() -> Bool {
        guard machine.hasGivenUp || machine.state == .setup && control == nil else { return false }
        isRetired = true
        return true
    }

    /// The session that was to take this one's place has not come.
    func stay() {
        isRetired = false
    }

    /// Lets go of the guest, as the session has given way or ended its migration.
    ///
    /// The session itself stays for as long as its store owes it an answer, or its source may come for one. For that it
    /// listens on until ``stopListening()``.
    func retire() {
        isRetired = true
        if machine.isRemembered, let peer { formers.add(peer.migration, events) } else { stopListening() }
        failConts("another migration has taken this one's place")
        discardMemory()
        loaded = nil
        endIfOver()
    }

    /// Gives the address up, for another session that takes it, and with it the connections for this one.
    func stopListening() {
        if !hasHandedOver { acceptor.close() }
        isListening = false
    }

    /// Ends a session that has retired, and owes nobody anything.
    func endIfOver() {
        guard isRetired, !machine.isRemembered, !machine.owesLease else { return }
        if let peer { formers.remove(peer.migration) }
        stopListening()
        events.finish()
    }

    /// Whether the session listens at an address's port.
    func listens(atPortOf address: SocketAddress) -> Bool {
        isListening && !hasHandedOver && acceptor.address.sharesPort(with: address)
    }

    /// `migrate_cancel`: nothing comes here; the source, whoever it is, is hung up on.
    ///
    /// - Throws: ``CommandRefused`` once only the source can cancel.
    func cancel() throws(CommandRefused) {
        isCancelled = true
        switch machine.migrateCancel() {
        case .refuse(let reason):
            isCancelled = false
            throw CommandRefused(reason: reason)
        case .done(let actions):
            perform(actions)
            // A source that has said HELLO only, of which the machine knows nothing.
            if machine.state == .setup { hangUp(reason: SwitchoverFailure.cancelled.description) }
            isCancelled = false
        }
    }

    /// `cont`: returns when the workload runs.
    ///
    /// - Throws: ``CommandRefused`` with the reason why it does not.
    func cont() async throws {
        guard !isRetired else { throw CommandRefused(reason: "another migration has taken this one's place") }
        switch machine.cont() {
        case .succeeded: return
        case .failed(let reason): throw CommandRefused(reason: reason)
        case .waits: break
        case .acquire(let grant): perform([.acquire(grant)])
        case .requestStart: perform([.send(.startRequest)])
        }
        try await withCheckedThrowingContinuation { waitingConts.append($0) }
    }

    /// Lets nobody wait any more.
    func failConts(_ reason: String) {
        waitingConts.forEach { $0.resume(throwing: CommandRefused(reason: reason)) }
        waitingConts = []
    }

    /// The agent ends: the source is told that nothing starts here, where that can be promised.
    ///
    /// - Parameter isPatient: whether a source that has lost the link may take as long as it is looked for to come for that
    ///   promise, and what prepares or undoes a start as long as it does.
    func leave(_ reason: String, isPatient: Bool) async {
        leaving = reason
        if machine.state == .postcopyDevice { logger.notice("nothing starts here any more: \(reason)") }
        perform(machine.prohibitStart(reason: reason))
        let begin = ContinuousClock.now
        let sourceTime = isPatient ? settings.recoveryTime : DestinationSession.leaveTime
        var deadline = begin + DestinationSession.leaveTime
        while true {
            let now = ContinuousClock.now
            let isInTime = now < begin + DestinationSession.startTime
            // A start that cannot be refused any more tells what has become of it.
            if isStarting && isInTime || (machine.isPreparingStart || machine.owesLease) && (isPatient || isInTime)
                || machine.awaitsSource && now < begin + sourceTime
            {
                // What comes after that has its own time.
                deadline = now + DestinationSession.leaveTime
            } else {
                guard machine.owesPromise, now < deadline else { break }
            }
            await rest(for: .milliseconds(20))
        }
        failConts(reason)
        if machine.state == .postcopyDevice {
            hangUp(reason: reason)
            perform(machine.linkLost(reason: reason))
        }
        // What was put into the control connection leaves first.
        await hangUps.joined()
    }

    /// Whether the commit point is passed, and the workload's start has not ended.
    private var isStarting: Bool { machine.isCommitted && !snapshot().hasStarted }

    /// `migrate-pause`: breaks the link, and lets the source make no other one before `migrate-recover`.
    func pause() throws(CommandRefused) {
        guard machine.state == .postcopyActive, control != nil else {
            throw CommandRefused(reason: "only a migration in postcopy-active can be paused")
        }
        acceptor.close()
        isListening = false
        lose("migrate-pause was asked for")
    }

    /// `migrate-recover`: waits for the source at another address.
    func recover(at address: SocketAddress) throws -> SocketAddress {
        guard control == nil, !machine.mayLeave else {
            throw CommandRefused(reason: "no migration is paused here, it is \(machine.state.rawValue)")
        }
        var other = try LaneAcceptor(at: address, logger: logger) { [events, formers] in
            formers.route($0, otherwise: events)
        }
        swap(&acceptor, &other)
        isListening = true
        start("listen") { [other] in other.stop() }
        return acceptor.address
    }
}

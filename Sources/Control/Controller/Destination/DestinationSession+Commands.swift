import Connections
import Guest
import Identity
import LinuxSystem
import Logging
import PageProtocol
import Switchover

/// Commands of clients, and the replacement of a session by the next one.
extension DestinationSession {
    /// Makes way for another session if no source has connected yet, or if the migration has failed.
    ///
    /// - Returns: whether another session may replace this one; if so, this session accepts no source any more.
    func giveWay() -> Bool {
        guard machine.hasGivenUp || machine.state == .setup && link == nil else { return false }
        if standing == .serves { standing = .makesWay }
        return true
    }

    /// Continues after ``giveWay()``, since the next session could not be made.
    ///
    /// If the address was given up for that session, this session listens there again.
    func stay() {
        guard standing == .makesWay else { return }
        standing = .serves
        guard !listener.isOpen, machine.state == .setup else { return }
        do {
            try listen(at: listener.acceptor.address)
        } catch {
            logger.error("cannot listen for a source again: \(error)")
        }
    }

    /// Gives up the guest, since the session has made way or its migration has ended.
    ///
    /// The session itself stays while the lease's store owes it an answer, or while its source may reconnect for one.
    /// Until then it listens, unless ``stopListening()`` is called.
    func retire() {
        standing = .retired
        if machine.isRemembered, let peer { formers.add(peer.migration, events) } else { stopListening() }
        waiting.conts.refuse("another migration has replaced this one")
        discardMemory()
        settleOpening()
        endIfOver()
    }

    /// Records that a client chose the address, which no other client changes.
    func noteCommand() { listener.isCommanded = true }

    /// Closes the listener, so that another session can use the address.
    func stopListening() {
        if !listener.isHandedOver { listener.acceptor.close() }
        listener.isOpen = false
    }

    /// Whether another session has replaced this one, or may do so: no source is accepted here.
    var isRetired: Bool { standing != .serves }

    /// Whether the session is retired, its source needs no answer, and the lease's store has answered.
    var isOver: Bool { standing == .retired && !machine.isRemembered && !machine.owesLease }

    /// Ends the session if it is over.
    func endIfOver() {
        guard isOver else { return }
        if let peer { formers.remove(peer.migration) }
        stopListening()
        events.finish()
    }

    /// Whether the session listens at an address's port.
    func listens(atPortOf address: SocketAddress) -> Bool {
        listener.isOpen && !listener.isHandedOver && listener.acceptor.address.sharesPort(with: address)
    }

    /// The reason that a source receives whose migration is cancelled here.
    static let cancelReason = "its operator has cancelled the migration"

    /// `migrate_cancel`: cancels the incoming migration, and hangs up on its source if one has connected.
    func cancel() throws(CommandRefused) {
        isCancelled = true
        let wasOver = machine.hasGivenUp
        switch machine.migrateCancel() {
        case .refuse where machine.state == .setup:
            isCancelled = false
            // As at a source, a cancel succeeds if nothing is under way. A source that has sent only HELLO is unknown to
            // the machine.
            guard link != nil else { return }
            logCancel()
            hangUp(reason: DestinationSession.cancelReason)
        case .refuse(let reason):
            isCancelled = false
            throw CommandRefused(reason: reason)
        case .done(let actions):
            if !wasOver { logCancel() }
            perform(actions)
            isCancelled = false
        }
    }

    private func logCancel() {
        logger.notice("the operator has cancelled the incoming migration: the workload stays at its source")
    }

    /// Ends a workload whose source the operator declares gone for good: its missing pages can never arrive.
    ///
    /// The agent exits afterwards.
    ///
    /// - Throws: ``CommandRefused`` if the machine refuses, or if only the end of the workload's process has failed.
    func sourceIsGone() throws(CommandRefused) {
        switch machine.sourceIsGone() {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .abandoned:
            course.endReason = course.endReason ?? machine.failureReason
            perform([])
            sink.sendWorkloadEnd()
            reportEnd()
            guard let leftover else { return }
            logger.error("\(leftover)")
            throw CommandRefused(reason: leftover)
        }
    }

    /// Why the workload that ran here was lost; nil if it was not.
    var loss: String? {
        guard case .failed = machine.state, machine.startedToken != nil else { return nil }
        return machine.failureReason
    }

    /// What an operator must do about a workload in another process that waits for lost pages; nil once that process
    /// has ended.
    var leftover: String? {
        guard case .failed = machine.state, machine.startedToken != nil, let workload = arrival?.workload,
            !workload.endsWithAgent,
            workload.activity.isRunning
        else { return nil }
        return "\(workload.name) could not be ended, and waits for pages that can never arrive: end its process"
    }

    /// `cont`: returns once the workload runs.
    func cont() async throws {
        guard !isRetired else { throw CommandRefused(reason: "another migration has replaced this one") }
        switch machine.cont() {
        case .succeeded: return
        case .failed(let reason) where machine.hasGivenUp:
            throw CommandRefused(
                reason: "\(reason); nothing is left to start here: run migrate at the source again"
            )
        case .failed(let reason): throw CommandRefused(reason: reason)
        case .waits: logger.notice("cont waits: \(startIsAwaited)")
        case .acquire(let grant): perform([.acquire(grant)])
        case .requestStart: perform([.send(.startRequest)])
        }
        try await withCheckedThrowingContinuation { waiting.conts.add($0) }
    }

    /// What a `cont` waits for.
    private var startIsAwaited: String {
        switch machine.state {
        case .setup where link == nil: "no source has connected to \(listener.acceptor.address) yet"
        case .setup, .active: "the source has not begun the switchover yet"
        default: "devices are loading, or the start is being prepared"
        }
    }

    /// `migrate-pause`: breaks the link, and keeps the source from reconnecting until `migrate-recover`.
    func pause() throws(CommandRefused) {
        guard machine.state == .postcopyActive, link != nil else {
            throw CommandRefused(
                reason: "only a migration in postcopy-active can be paused, it is \(machine.state.rawValue)"
            )
        }
        listener.acceptor.close()
        listener.isOpen = false
        endLink(SwitchoverFailure.pausedByOperator)
    }

    /// Who can listen at another address, and when.
    static let whoRecovers =
        "only the destination of a migration in postcopy-paused listens anew; look again with query-migrate"

    /// `migrate-recover`: listens for the source at another address.
    ///
    /// - Returns: the address, with the port that the kernel chose.
    /// - Throws: ``CommandRefused`` if no migration is paused, `SystemError` if the kernel refuses the address.
    func recover(at address: SocketAddress) throws -> SocketAddress {
        guard link == nil, !machine.mayLeave else {
            throw CommandRefused(
                reason:
                    "no migration is paused here, it is \(machine.state.rawValue); \(DestinationSession.whoRecovers)"
            )
        }
        // The session may already listen there.
        if !listener.isOpen || listener.acceptor.address != address { try listen(at: address) }
        return listener.acceptor.address
    }

    private func listen(at address: SocketAddress) throws {
        var other = try LaneAcceptor(at: address, logger: logger) { [events, formers] in
            formers.route($0, otherwise: events)
        }
        swap(&listener.acceptor, &other)
        listener.isOpen = true
        threads.work.run("listen") { [other] in other.stop() }
    }
}

import Connections
import Guest
import Identity
import LinuxSystem
import Logging
import PageProtocol
import PageServer
import RunLease
import Switchover
import Telemetry

/// Reconnecting after a link has broken, and deciding by the run lease if messages cannot.
extension SourceSession {
    /// Redials the destination of a paused migration, unless only an operator may do that.
    func redialByItself() {
        guard !redialing.holdsStill else { return }
        startRedial()
    }

    func startRedial() {
        guard redialing.attempt == nil else { return }
        guard settings.recoveryTime > .zero else { return stopLooking() }
        var search = redialing.search ?? newSearch()
        guard !search.isOver else { return giveUpRedial(redialing.noAnswer) }
        do throws(SystemError) {
            let attempt = try Redial(search, noAnswer: redialing.noAnswer)
            search.slowDown()
            redialing.search = search
            redialing.attempt = attempt
            threads.work.run("redial") { [destination, events, tally = sink.tally] in
                switch attempt.run(destination, onTry: tally.noteRetry) {
                case .reached(let socket): events.add(.redialed(attempt, socket))
                case .givenUp(let reason): events.add(.redialGivenUp(attempt, reason: reason))
                }
            }
        } catch {
            logger.error("cannot redial the destination: \(error)")
            stopLooking()
        }
    }

    private func newSearch() -> Redial.Search {
        redialing.searches += 1
        events.add(.searchOver(redialing.searches), after: searchTime)
        return Redial.Search(redialing.searches)
    }

    /// Uses a new connection: resumes a paused migration, or tells the destination that the workload was taken back.
    func redialed(_ socket: Handover<StreamSocket>) {
        redialing.attempt = nil
        // During a take-back the machine already has a link for the last message, and clients see the migration as
        // paused.
        if machine.state == .postcopyPaused, machine.link == nil {
            // While the lease is being tried the machine makes no link; afterwards the source redials again.
            guard case .connect = machine.recover() else { return }
            note()
        }
        if let link = machine.link { connected(socket, on: link) }
    }

    /// Stops redialing after the recovery time; from now on only `recover` makes a link.
    func giveUpRedial(_ reason: String) {
        redialing.attempt = nil
        if machine.state == .postcopyPaused {
            logger.warning("cannot reconnect to \(destination): \(reason); run recover when it can be reached")
        }
        stopLooking()
    }

    func stopLooking() {
        redialing.search = nil
        if machine.state == .postcopyPaused { redialing.holdsStill = true }
        machine.redialGivenUp()
        note()
    }

    func resync() {
        link?.control.allowSilence()
        link?.rejoining?.isAsked = true
        settleRejoin()
    }

    /// Prepares to serve a rejoining link, once the destination has listed its pages and the lanes are connected.
    func settleRejoin() {
        guard let link = machine.link, let rejoining = self.link?.rejoining, rejoining.isAsked,
            let received = rejoining.received.complete, let lanes = rejoining.lanes
        else { return }
        self.link?.rejoining = nil
        // `resend` waits for the threads of the former lanes.
        threads.work.run("resend") { [pageServer, events, tell = lanesOf(link), hangUps = pageServer.hangUps] in
            guard let lost = pageServer.resend(allBut: received, after: hangUps, telling: tell) else { return }
            events.add(.link(link, .resent(lost: lost, lanes)))
        }
    }

    /// Serves over the lanes of a rejoining link.
    ///
    /// - Parameters:
    ///   - lanes: the link's lanes.
    ///   - link: the number of the link.
    ///   - lost: the number of pages that the destination lacks and that were freed here; the link fails unless 0.
    func serve(_ lanes: Lanes, of link: LinkNumber, lost: Int) {
        guard lost == 0 else {
            redialing.holdsStill = true
            let (were, are) =
                lost == 1 ? ("was", "is lost: --release-ram freed it") : ("were", "are lost: --release-ram freed them")
            return endLink("\(counted(lost, "page")) \(were) in flight when the link broke, and \(are)")
        }
        do throws(SystemError) {
            try attach(lanes, of: link)
        } catch {
            return endLink("\(error)")
        }
        redialing.holdsStill = false
        // A link that breaks at once does not restart the recovery time.
        events.add(.link(link, .held), after: settings.peerTimeout)
        logger.notice("reconnected to \(destination)")
        sink.tally.noteReconnect()
        if machine.isStartedThere { destinationPath.note(.postcopyActive) }
        perform(machine.resynced())
    }

    /// Takes the workload back if no RUN is pending, so that an exiting agent can stop its own workload.
    func cancelBeforeRun() async {
        guard machine.isTakeBackPossible else { return }
        // A workload that cannot resume stays stopped here, as an exiting agent needs it.
        try? await cancel()
    }

    func seizeLease(_ grant: RunGrant) {
        guard let lease = settings.lease else { return }
        threads.work.run("lease") { [events] in
            events.add(.seized(lease.seize(after: grant.epoch, token: grant.token)))
        }
    }

    /// Tries the lease again after a pause, if the lease could not be reached.
    func askLeaseLater() {
        guard machine.awaitsLease, !lease.isToBeAsked else { return }
        lease.isToBeAsked = true
        events.add(.leaseDue, after: SourceSession.leasePause)
    }

    /// Tries the lease again, unless a link that is being made decides first.
    func askLease() {
        lease.isToBeAsked = false
        perform(machine.leaseDue())
        askLeaseLater()
    }

    /// Writes the source into the lease's record again, after the destination's promise never to start by this token.
    func regainLease(by token: RunToken) {
        guard let lease = settings.lease, let peer else { return }
        threads.work.run("lease") { [events, logger] in
            let outcome = lease.regain(token: token, promisedBy: peer.instance.description) {
                logger.warning("cannot take the run lease back yet: \($0)")
            }
            events.add(.regained(outcome))
        }
    }

    /// Handles a lease record that no promise of the destination covers.
    func leaseSuperseded(by record: LeaseRecord) {
        let reason = "cannot take back the run lease '\(settings.lease?.workload ?? "")': \(record.sentence)"
        let runs = machine.isWorkloadHere || workload.activity.isRunning
        logger.error("\(reason)\(runs ? "; the workload runs here too: stop one of the two" : "")")
        perform(machine.leaseSuperseded(reason: reason))
    }
}

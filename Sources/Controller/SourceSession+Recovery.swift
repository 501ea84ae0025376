import Connections
import Guest
import LinuxSystem
import Logging
import PageProtocol
import RunLease
import SourceAgent
import Switchover

/// Links that break and are made again, and the run lease where messages cannot decide.
extension SourceSession {
    /// Looks for the destination of a paused migration, without being asked.
    func redialByItself() {
        guard !holdsStill else { return }
        startRedial()
    }

    func startRedial() {
        guard redial == nil else { return }
        guard settings.recoveryTime > .zero else { return stopLooking() }
        do throws(SystemError) {
            var search = self.search ?? Redial.Search(for: searchTime)
            let attempt = try Redial(search)
            search.slowDown()
            self.search = search
            redial = attempt
            start("redial") { [destination, events] in
                switch attempt.run(destination) {
                case .reached(let socket): events.yield(.redialed(attempt, socket))
                case .givenUp(let reason): events.yield(.redialGivenUp(attempt, reason: reason))
                }
            }
        } catch {
            logger.error("cannot look for the destination again: \(error)")
            stopLooking()
        }
    }

    /// The destination is there again: a paused migration goes on, or it is told that the workload was taken back.
    func redialed(_ socket: Handover<StreamSocket>) {
        redial = nil
        if machine.state == .postcopyPaused {
            // While the lease is being asked no link is made; whatever it says, there is another attempt.
            guard case .connect = machine.recover() else { return }
            note()
        }
        if let link = machine.link { connected(socket, on: link) }
    }

    /// The destination was not there for as long as it is looked for: from now on only `recover` does.
    func giveUpRedial(_ reason: String) {
        redial = nil
        if machine.state == .postcopyPaused {
            logger.warning("\(destination) was looked for in vain: \(reason); run recover when it can be reached")
        }
        stopLooking()
    }

    private func stopLooking() {
        search = nil
        if machine.state == .postcopyPaused { holdsStill = true }
        machine.redialGivenUp()
        note()
    }

    func resync() {
        guard let control else { return }
        control.allowSilence()
        rejoining?.isAsked = true
        settleRejoin()
    }

    /// Serves over a link that rejoins, once the destination has said what it has and the lanes stand.
    func settleRejoin() {
        guard let link = machine.link, let rejoining, rejoining.isAsked, let received = rejoining.received.complete,
            let lanes = rejoining.lanes
        else { return }
        self.rejoining = nil
        // The threads of the lanes before are waited for.
        start("resend") { [agent, events, tell = lanesOf(link), hangUps = agent.hangUps] in
            guard let lost = agent.resend(allBut: received, after: hangUps, telling: tell) else { return }
            events.yield(.link(link, .resent(lost: lost, lanes)))
        }
    }

    /// Serves over the lanes of a link that rejoins.
    func serve(_ lanes: Lanes, of link: LinkNumber, lost: Int) {
        guard lost == 0 else {
            holdsStill = true
            return lose("\(lost) pages were in flight when the link broke, and are gone: --release-ram gave them back")
        }
        do throws(SystemError) {
            try agent.attach(urgent: lanes.urgent, bulk: lanes.bulk, telling: lanesOf(link))
        } catch {
            return lose("\(error)")
        }
        holdsStill = false
        // One that breaks at once, again and again, is not looked for anew each time.
        Task { [events, settings] in
            await rest(for: settings.peerTimeout)
            events.yield(.link(link, .held))
        }
        logger.notice("\(destination) is there again")
        perform(machine.resynced())
    }

    /// Takes the workload back if no RUN is out, so that an agent that ends has a workload of its own to stop.
    func cancelBeforeRun() async {
        guard machine.isTakeBackPossible else { return }
        // A workload that cannot resume stays stopped here.
        try? await cancel()
    }

    func seizeLease(_ grant: RunGrant) {
        guard let lease = settings.lease else { return }
        start("lease") { [events] in
            events.yield(.seized(lease.seize(after: grant.epoch, token: grant.token.value)))
        }
    }

    /// Mends the record of a RUN that the destination has promised never to start by.
    func regainLease(by token: RunToken) {
        guard let lease = settings.lease, let peer else { return }
        start("lease") { [events, logger] in
            let outcome = lease.regain(token: token.value, promisedBy: peer.instance.description) {
                logger.warning("cannot take the run lease back yet: \($0)")
            }
            events.yield(.regained(outcome))
        }
    }

    /// The lease is held by an agent of which no promise speaks.
    func leaseSuperseded(by record: LeaseRecord) {
        let reason = "the run lease '\(settings.lease?.workload ?? "")' is another's: \(record.sentence)"
        let runs = machine.isWorkloadHere || workload.activity.isRunning
        logger.error("\(reason)\(runs ? "; the workload runs here too: stop one of the two" : "")")
        perform(machine.leaseSuperseded(reason: reason))
    }
}

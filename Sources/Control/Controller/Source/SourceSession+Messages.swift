import Compression
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

/// Handling the destination's messages.
extension SourceSession {
    func connected(_ handover: Handover<StreamSocket>, on link: LinkNumber) {
        // If two attempts succeed, the first one counts.
        guard self.link == nil, let socket = handover.take() else { return }
        let pushLanes = mostPushLanes(roundTrip: socket.roundTrip)
        do {
            let control = try ControlLink(
                socket,
                peerTimeout: settings.peerTimeout,
                hangUps: threads.hangUps,
                logger: logger,
                events: events
            ) { .link(link, .control($0)) }
            self.link = Link(control: control, pushLanes: pushLanes)
            perform(machine.linkUp())
        } catch {
            perform(machine.linkEnded(reason: "\(error)"))
        }
    }

    func join(_ lanes: Lanes, of link: LinkNumber) {
        guard self.link != nil else { return }
        if self.link?.rejoining != nil {
            self.link?.rejoining?.lanes = lanes
            return settleRejoin()
        }
        do {
            try attach(lanes, of: link)
        } catch {
            endLink("\(error)")
        }
    }

    /// Lets the page server use the lanes of a link.
    func attach(_ lanes: Lanes, of link: LinkNumber) throws(SystemError) {
        try pageServer.attach(
            urgent: lanes.urgent,
            bulk: lanes.bulk,
            inflating: peer?.capabilities.inflated ?? [],
            telling: lanesOf(link)
        )
    }

    func receive(_ message: ControlMessage, on link: LinkNumber) {
        guard let control = self.link?.control else { return }
        if case .hello(let hello) = message {
            if let objection = greet(hello, on: link) { control.fail(objection) }
            return
        }
        if case .refused(let reason) = message {
            // The destination refuses to resume this migration, so the source redials only when an operator asks for
            // that.
            if !machine.isTakeBackPossible { redialing.holdsStill = true }
            destinationPath.note(.failed)
            return perform(machine.refused(reason: reason))
        }
        if case .failure(let reason) = message { return endLink("the destination reports: \(reason)") }
        guard let peer else { return control.fail("the destination sent \(message.kind) before its HELLO") }
        let instance = peer.instance
        switch message {
        case .ready:
            control.allowSilence()
            timeline.note(.ready)
            destinationPath.note(.active)
            perform(machine.ready(from: instance, tellsStart: peer.capabilities.contains(.startResult)))
        case .received(let part):
            guard self.link?.rejoining?.received.add(part) == true else {
                return control.fail("the destination sent a RECEIVED that does not fit the memory")
            }
            settleRejoin()
        case .pong(let number):
            timeline.note(.loaded)
            destinationPath.note(.postcopyDevice)
            perform(machine.pong(number, from: instance))
        case .devicesFailed(let device, let reason):
            destinationPath.note(.failed)
            perform(machine.devicesFailed(device: device, reason: reason))
        case .running(let token):
            perform(machine.running(token, from: instance))
            if machine.isStartedThere {
                destinationPath.note(.postcopyActive)
                noteStart()
            }
        case .startFailed(let token, let reason):
            notePromise(token, from: peer)
            perform(machine.startFailed(token, reason: reason, from: instance))
        case .cancelled(let token):
            notePromise(token, from: peer)
            destinationPath.note(.cancelled)
            perform(machine.cancelled(token, from: instance))
        case .startRequest: perform(machine.startRequested(fresh: freshGrant()))
        case .completeAck:
            destinationPath.note(.completed)
            perform(machine.completeAcknowledged())
        case .hello, .failure, .refused, .regions, .listen, .devices, .devicesAhead, .deviceData, .ping, .run, .cancel,
            .complete,
            .bye, .slices,
            .snapshot:
            control.fail("the destination sent \(message.kind), which it never sends here")
        }
    }

    /// Records the destination's promise in the lease, which may then overwrite the destination's record for that
    /// token.
    private func notePromise(_ token: RunToken, from peer: Hello) {
        // Token 0 stands for no RUN, and for the records that an instance writes without one.
        if token != .none { settings.lease?.notePromise(token: token, from: peer.instance.description) }
    }

    /// Handles the destination's HELLO.
    ///
    /// - Returns: why the link must end, if the destination is not the one that was dialed.
    private func greet(_ hello: Hello, on link: LinkNumber) -> String? {
        let rejoins = self.link?.rejoining != nil
        guard peer == nil || rejoins else { return "the destination sent HELLO twice" }
        guard hello.role == .destination else { return "the peer at \(destination) is a source too" }
        guard hello.migration == migration else { return "the destination answered for another migration" }
        guard !hello.rejoins else { return "the destination's HELLO rejoins, which only a source's does" }
        guard hello.lease == self.hello(rejoins: false).lease else {
            return "the destination answered with another run lease"
        }
        // The address leads to another agent than the operator named.
        if peer == nil, let wanted = settings.wanted, hello.instance != wanted {
            let reason =
                "another agent answers at \(destination); give the uri at which the named destination listens"
            logger.error("\(reason); instance \(hello.instance) answers, \(wanted) is wanted")
            perform(machine.otherDestination(reason: reason))
            return nil
        }
        if settings.isPaused, !hello.capabilities.contains(.paused) {
            return
                "the workload is paused, and the agent at \(destination) is of an older release that would start it; "
                + "run cont first"
        }
        let compression = settings.compression
        if compression != .none, compression.codecs(of: hello.capabilities.inflated).isEmpty {
            let what = compression == .auto ? "compressed pages" : "pages compressed by \(compression.rawValue)"
            logger.notice("the destination does not take \(what); pages are pushed as they are")
        }
        peer = hello
        destinationPath.note(rejoins ? .postcopyRecover : .setup)
        let wanted = self.link?.pushLanes ?? 1
        let lanes = min(wanted, hello.bulkLanes)
        if lanes < wanted {
            logger.notice("the push uses \(counted(lanes, "connection")) of \(wanted): the destination takes no more")
        }
        pushLanes = lanes
        joinLanes(as: hello, bulk: lanes, of: link)
        if rejoins { perform(machine.welcomed(by: hello.instance)) }
        return nil
    }

    /// The most bulk lanes that this side uses on a link.
    private func mostPushLanes(roundTrip: Duration?) -> Int {
        guard settings.pushes else { return 1 }
        let pageSize = workload.description.regions.map(\.pageSize).max() ?? 0
        return min(
            settings.pushLanes ?? PushLanes.usual(roundTrip: roundTrip),
            PushLanes.most(ofPagesWithBytes: pageSize)
        )
    }

    private func joinLanes(as hello: Hello, bulk count: Int, of link: LinkNumber) {
        threads.work.run("join-lanes") { [destination, events, peerTimeout = settings.peerTimeout] in
            do throws(SystemError) {
                let lanes = try Lanes(
                    to: destination,
                    as: hello,
                    urgentLanes: hello.urgentLanes,
                    bulkLanes: count,
                    peerTimeout: peerTimeout
                )
                events.add(.link(link, .lanesJoined(lanes)))
            } catch {
                events.add(.link(link, .failed(reason: "\(error)")))
            }
        }
    }
}

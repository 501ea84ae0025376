import Connections
import Guest
import Identity
import LinuxSystem
import Logging
import PageFetcher
import PageProtocol
import RunLease
import Switchover
import Telemetry

/// Handling the source's messages.
extension DestinationSession {
    func greet(_ arrival: LaneAcceptor.Arrival, _ hello: Hello) {
        if !hello.rejoins {
            // The acceptor delivered this arrival just before this session handed the acceptor over. An arrival of this
            // session's own migration would come back here.
            if listener.isHandedOver, hello.migration != peer?.migration { return listener.acceptor.deliver(arrival) }
            if holdOpening(arrival, hello) { return }
        }
        guard let socket = arrival.socket.take() else { return }
        if hello.rejoins { greetAgain(socket, hello) } else { meet(socket, hello) }
    }

    /// Accepts or refuses a source that has connected for the first time.
    func meet(_ socket: consuming StreamSocket, _ hello: Hello) {
        dropUndecided()
        if let reason = objection(to: hello) { return listener.acceptor.refuse(socket, reason: reason) }
        peer = hello
        logger[metadataKey: "migration"] = "\(hello.migration)"
        // The times of an earlier source, which brought no workload, do not count.
        timeline = Timeline()
        timeline.note(.begin)
        sourcePath = StatePath()
        sourcePath.note(.setup)
        guard let link = take(socket, hello, regions: .awaited) else { return }
        link.control.send(.hello(answer(to: hello, on: link)))
        limit(.haste, to: DestinationSession.undecidedTime)
        limit(.regions, to: regionsTime)
    }

    /// Makes the socket on which `hello` came the current control connection.
    ///
    /// - Returns: nil if the kernel refuses a thread or a descriptor, which is logged.
    private func take(_ socket: consuming StreamSocket, _ hello: Hello, regions: Link.Regions) -> Link? {
        do throws(SystemError) {
            links.newest = links.newest.next
            let control = try ControlLink(
                socket,
                peerTimeout: settings.peerTimeout,
                hangUps: threads.hangUps,
                logger: logger,
                events: events
            ) { [number = links.newest] in .link(number, .control($0)) }
            // This side announces the most bulk lanes that there can be, so the source's number is the smaller one.
            let lanes = Lanes.Arriving(urgentLanes: settings.faultThreads, bulkLanes: hello.bulkLanes)
            let made = Link(number: links.newest, control: control, lanes: lanes, regions: regions)
            link = made
            return made
        } catch {
            logger.error("cannot use the source's connection: \(error)")
            return nil
        }
    }

    /// What every destination announces.
    private static let capabilities: Capabilities = [.startResult, .stateAhead, .paused, .inflateLZ4, .inflateZstd]

    private func answer(to hello: Hello, on link: Link) -> Hello {
        Hello(
            role: .destination,
            urgentLanes: settings.faultThreads,
            bulkLanes: Wire.maxBulkLanes,
            capabilities: DestinationSession.capabilities,
            migration: hello.migration,
            instance: settings.instance,
            nonce: link.nonce,
            lease: hello.lease
        )
    }

    /// Handles a source that reconnects: its newest connection replaces the others.
    private func greetAgain(_ socket: consuming StreamSocket, _ hello: Hello) {
        guard let peer, hello.role == .source, hello.migration == peer.migration, hello.instance == peer.instance,
            hello.lease == peer.lease
        else { return listener.acceptor.refuse(socket, reason: "this agent does not know that migration") }
        if lossReason != nil, machine.state != .completed, let token = machine.startedToken {
            return tellLoss(socket, hello, token)
        }
        switch machine.rejoin() {
        case .refuse(let reason, let actions):
            perform(actions)
            listener.acceptor.refuse(socket, reason: reason)
        case .welcome(let actions):
            sourcePath.note(.postcopyRecover)
            hangUp(reason: link == nil ? nil : "the source came over a new connection")
            perform(actions)
            if take(socket, hello, regions: .accepted) != nil {
                perform([.send(.welcome)])
            } else {
                endLink("the new connection cannot be used")
            }
        }
    }

    /// Tells a reconnecting source that its workload has run here, and why it needs no more pages.
    private func tellLoss(_ socket: consuming StreamSocket, _ hello: Hello, _ token: RunToken) {
        perform(machine.linkEnded(reason: "the source came over a new connection"))
        hangUp(reason: nil)
        guard let peer, let link = take(socket, hello, regions: .accepted) else { return }
        link.control.send(.hello(answer(to: peer, on: link)))
        link.control.send(.running(token: token))
        if let lossReason { link.control.send(.refused(reason: lossReason)) }
        hangUp(reason: nil)
    }

    func welcome(on link: Link) {
        guard let peer, let arrival else { preconditionFailure("a source rejoins a migration that never began") }
        link.control.send(.hello(answer(to: peer, on: link)))
        // A session that has freed its memory needs no page any more.
        guard let fetcher = arrival.fetcher else {
            noteReconnect()
            let pageCounts = arrival.announcement.description.regions.map(\.pageCount)
            for part in ReceivedMap.parts(of: ReceivedMap.everything(of: pageCounts)) {
                link.control.send(.received(part))
            }
            return link.control.allowSilence()
        }
        // Pages that the former lanes are still placing count as received.
        threads.work.run("welcome") { [events, number = link.number] in
            fetcher.waitForLanes()
            events.add(.link(number, .received(fetcher.received)))
        }
    }

    /// Why a source is refused; nil if it is accepted.
    private func objection(to hello: Hello) -> String? {
        guard hello.role == .source else { return "a destination dialed a destination" }
        guard link == nil, machine.state == .setup, !isRetired else {
            return "this agent is busy with a migration, which is \(machine.state.rawValue)"
        }
        return objection(to: hello.lease)
    }

    private func objection(to claim: LeaseClaim) -> String? {
        switch (claim, settings.lease) {
        case (.absent, nil): return nil
        case (.files, nil):
            return
                "the source uses a run lease and this destination none; start the destination with the source's --lease"
        case (.absent, .some):
            return
                "the source uses no run lease and this destination does; start the source with the destination's --lease, or the destination without"
        case (.files(let epoch, _, let workload), let lease?):
            guard claim != lease.claim(from: epoch) else { return nil }
            return workload == lease.workload
                ? "the source keeps its run lease in another store; mount one folder on both hosts, and give it to both by --lease"
                : "the source's run lease is '\(workload)' and this destination's '\(lease.workload)'; give both the same --lease"
        }
    }

    func join(_ handover: Handover<StreamSocket>, _ join: Join) {
        guard let socket = handover.take() else { return }
        guard let peer, let link, join.migration == peer.migration, join.nonce == link.nonce, link.lanes.awaits(join)
        else { return listener.acceptor.refuseLane(socket, join) }
        do throws(SystemError) {
            try socket.tolerateSilence(of: settings.peerTimeout)
        } catch {
            return endLink("\(error)")
        }
        self.link?.lanes.add(SharedSocket(socket), join)
        if arrival?.fetcher != nil { attachAgain() } else { settlePreparation() }
    }

    /// How long a source may take to answer probes on the urgent lane: at least as long as it may be silent.
    private var probeTime: Duration { max(.seconds(5), settings.peerTimeout) }

    /// Measures the time of a local fault and of a round trip to the source, once the memory and the lanes are there.
    ///
    /// Frees the memory instead if its source has left meanwhile.
    func settlePreparation() {
        guard case .prepared? = arrival?.preparation else { return }
        guard let link, link.isAccepted else { return endPreparation() }
        guard let lanes = link.lanes.complete else { return }
        threads.work.run("probe") { [events, number = link.number, probeTime] in
            let socket = lanes.urgent[0]
            do {
                var floor = Report.Floor()
                floor.localFaultP50 = try Floor.localFault()
                floor.roundTripP50 = try Floor.roundTrip(on: socket.stream, within: probeTime)
                events.add(.link(number, .probed(floor: floor, lanes)))
            } catch {
                events.add(.link(number, .failed(reason: "\(error)")))
            }
        }
    }

    /// Uses the lanes after the measurement; memory that arrives only while the devices load finds them waiting.
    func attach(_ lanes: Lanes) {
        guard case .prepared(let workload)? = arrival?.preparation else { return }
        if case .here(let memory)? = arrival?.memory {
            do throws(SystemError) {
                try serve(memory, over: lanes)
            } catch {
                return endPreparation(refusing: "\(error)")
            }
        } else {
            arrival?.memory = .awaited(lanes)
        }
        arrival?.preparation = .attached(workload)
        workload.onEnd { [events] reason in events.add(.workloadEnded(reason: reason)) }
        endPreparation()
    }

    /// Takes the memory that the landing has made.
    ///
    /// If it comes only while the devices load, it is served at once, since loading them touches it.
    func takeMemory(_ memory: Handover<WaitingMemory>) {
        guard case .awaited(let lanes)? = arrival?.memory else { return }
        guard let lanes else {
            arrival?.memory = .here(memory)
            return
        }
        do throws(SystemError) {
            try serve(memory, over: lanes)
            try arrival?.fetcher?.start()
        } catch {
            endLink("\(error)")
        }
    }

    private func serve(_ handover: Handover<WaitingMemory>, over lanes: Lanes) throws(SystemError) {
        guard let table = arrival?.table, let link, let memory = handover.take() else { return }
        let (ranges, aliases, resident) = (memory.ranges, memory.aliases, memory.resident)
        let (resolvesInThread, pageTable, keep) = (memory.resolvesInThread, memory.pageTable, memory.keep)
        let events =
            memory.raisesEvents
            ? try MemoryEvents(in: SharedMemory(anonymousBytes: MemoryEvents.byteCount), at: 0) : nil
        let fetcher = try PageFetcher(
            userfaultfd: memory.takeUserfaultfd(),
            ranges: ranges,
            resident: resident,
            aliases: aliases,
            table: table,
            prefetch: settings.prefetch,
            faultThreads: settings.faultThreads,
            resolvesInThread: resolvesInThread,
            events: events,
            pageTable: pageTable,
            polling: settings.polling,
            grid: settings.countsPlaces ? arrival?.announcement.grid : nil,
            keep: keep
        ) { [events = self.events] in events.add(.fetcher($0)) }
        try attach(lanes, of: link.number, to: fetcher)
        arrival?.memory = .served(fetcher, isStopped: false)
    }

    private func attach(_ lanes: Lanes, of link: LinkNumber, to fetcher: PageFetcher) throws(SystemError) {
        try fetcher.attach(
            urgent: lanes.urgent,
            bulk: lanes.bulk,
            answersAhead: peer?.capabilities.contains(.aheadRequest) == true,
            inflating: DestinationSession.capabilities.inflated,
            telling: lanesOf(link)
        )
    }

    /// Attaches the lanes of a rejoining link, once the source was told which pages have arrived.
    func attachAgain() {
        guard let fetcher = arrival?.fetcher, let link, link.isWelcomed, let lanes = link.lanes.complete else { return }
        do throws(SystemError) {
            try attach(lanes, of: link.number, to: fetcher)
        } catch {
            endLink("\(error)")
        }
    }

    func receive(_ message: ControlMessage, on link: Link) {
        switch message {
        case .regions, .failure, .refused: break
        default: guard link.isAccepted else { return endLink("the source sent \(message.kind) before REGIONS") }
        }
        do throws(ArrivingStates.Objection) {
            try take(message, on: link)
        } catch {
            endLink("\(error)")
        }
    }

    private func take(_ message: ControlMessage, on link: Link) throws(ArrivingStates.Objection) {
        switch message {
        case .regions(let announcement): takeRegions(announcement, on: link)
        case .devicesAhead(let entries):
            guard machine.state == .active else { return endLink("the source sent DEVICES_AHEAD out of order") }
            try arrival?.states.announceAhead(entries)
        case .listen:
            try arrival?.states.requireAhead(before: "LISTEN")
            sourcePath.note(.device)
            limitDevices(bytes: 0)
            perform(machine.listen())
        case .devices(let entries):
            limitDevices(bytes: entries.reduce(0) { $0 + Int($1.byteCount) })
            arrival?.states.announce(entries)
            perform(machine.devices())
        case .deviceData(let bytes): try arrival?.states.add(bytes)
        case .ping(let number):
            guard arrival?.states.complete != nil else { throw .unfinished(before: "PING") }
            sourcePath.note(.postcopyDevice)
            // No further device state is awaited.
            self.link?.deviceLimits += 1
            perform(machine.ping(number))
        case .run(let token, let epoch):
            timeline.note(.runReceived, of: token, until: .started)
            sampleArrivals()
            sourcePath.note(.postcopyActive)
            perform(machine.run(RunGrant(token: token, epoch: epoch)))
        case .cancel(let token):
            logger.notice("the source asks to have the workload back")
            sourcePath.note(.cancelling)
            perform(machine.cancel(token))
        case .complete: perform(machine.complete())
        case .bye:
            sourcePath.note(machine.state == .completed ? .completed : .cancelled)
            perform(machine.bye())
        case .failure(let reason), .refused(let reason):
            endLink("the source reports: \(reason)")
        case .hello, .ready, .pong, .devicesFailed, .running, .startFailed, .startRequest, .cancelled,
            .received, .completeAck, .slices, .snapshot:
            endLink("the source sent \(message.kind), which it never sends here")
        }
    }

    private func takeRegions(_ announcement: GuestAnnouncement, on link: Link) {
        guard link.awaitsRegions else { return endLink("the source sent REGIONS twice") }
        guard arrival?.isPreparing != true else {
            self.link?.regions = .held(announcement)
            limit(.preparation, to: DestinationSession.preparationTime)
            return logger.notice("a source waits until the memory of a broken link is freed")
        }
        accept(announcement, on: link)
    }

    /// Accepts a source's REGIONS, and begins to prepare memory for them.
    func accept(_ announcement: GuestAnnouncement, on link: Link) {
        let largestPage = announcement.description.regions.map(\.pageSize).max() ?? 0
        let (lanes, most) = (peer?.bulkLanes ?? 1, PushLanes.most(ofPagesWithBytes: largestPage))
        guard lanes <= most else {
            let reason = "pages of \(largestPage) bytes take at most \(most) connections of the push, not \(lanes)"
            link.control.send(.refused(reason: reason))
            return hangUp(reason: nil)
        }
        do throws(ProtocolError) {
            arrival = try ArrivingWorkload(announcement)
        } catch {
            link.control.send(.refused(reason: "\(error)"))
            return hangUp(reason: nil)
        }
        self.link?.regions = .accepted
        tellAccepted()
        sourcePath.note(.active)
        perform(machine.hello())
    }
}

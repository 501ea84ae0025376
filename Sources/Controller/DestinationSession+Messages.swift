import Connections
import DestinationAgent
import Guest
import LinuxSystem
import Logging
import PageProtocol
import Switchover
import Telemetry

/// What the source says.
extension DestinationSession {
    func greet(_ handover: Handover<StreamSocket>, _ hello: Hello) {
        guard let socket = handover.take() else { return }
        if hello.rejoins { return greetAgain(socket, hello) }
        dropUndecided()
        if let reason = objection(to: hello) { return acceptor.refuse(socket, reason: reason) }
        arriving = nil
        peer = hello
        timeline.note(.begin)
        guard let lane = take(socket) else { return }
        send(.hello(answer(to: hello)), on: lane)
        limit(.regions, to: DestinationSession.regionsTime)
    }

    /// Makes a connection the control connection.
    private func take(_ socket: consuming StreamSocket) -> ControlLane? {
        do throws(SystemError) {
            lastControl = lastControl.next
            let number = lastControl
            let lane = try ControlLane(socket, peerTimeout: settings.peerTimeout) { [events] in
                events.yield(.link(number, .control($0)))
            }
            control = (lane, number)
            (controlSince, isLastWordSent, devicesDeadline) = (.now, false, nil)
            nonce = .random()
            return lane
        } catch {
            logger.error("cannot take a migration: \(error)")
            return nil
        }
    }

    private func answer(to hello: Hello) -> Hello {
        Hello(
            role: .destination,
            urgentLanes: settings.faultThreads,
            capabilities: .startResult,
            migration: hello.migration,
            instance: instance,
            nonce: nonce,
            lease: hello.lease
        )
    }

    /// A source comes over a new connection: the newest wins.
    private func greetAgain(_ socket: consuming StreamSocket, _ hello: Hello) {
        guard let peer, hello.role == .source, hello.migration == peer.migration, hello.instance == peer.instance,
            hello.lease == peer.lease
        else { return acceptor.refuse(socket, reason: "this agent knows nothing of that migration") }
        if endReason != nil, machine.state != .completed, let token = machine.startedToken {
            return tellEnd(socket, token)
        }
        switch machine.rejoin() {
        case .refuse(let reason, let actions):
            perform(actions)
            acceptor.refuse(socket, reason: reason)
        case .welcome(let actions):
            hangUp(reason: control == nil ? nil : "the source came over a new connection")
            perform(actions)
            if take(socket) != nil {
                logger.notice("the source is there again")
                perform([.send(.welcome)])
            } else {
                lose("no connection can be taken")
            }
        }
    }

    /// Tells a source that comes again that its workload has run here, and has ended.
    private func tellEnd(_ socket: consuming StreamSocket, _ token: RunToken) {
        perform(machine.linkLost(reason: "the source came over a new connection"))
        hangUp(reason: nil)
        guard let peer, let lane = take(socket) else { return }
        send(.hello(answer(to: peer)), on: lane)
        send(.running(token: token.value), on: lane)
        send(.refused(reason: lossReason), on: lane)
        hangUp(reason: nil)
    }

    func welcome(on lane: ControlLane) {
        guard let peer, let announcement else { return lose("the agent has lost its part of the migration") }
        send(.hello(answer(to: peer)), on: lane)
        // A session that has let go of its memory needs no page any more.
        guard let agent else {
            let pageCounts = announcement.description.regions.map(\.pageCount)
            for part in ReceivedMap.parts(of: ReceivedMap.everything(of: pageCounts)) {
                send(.received(part), on: lane)
            }
            return lane.allowSilence()
        }
        // What the lanes before still place counts as received.
        start("welcome") { [events, number = lastControl] in
            agent.waitForLanes()
            events.yield(.link(number, .received(agent.received)))
        }
    }

    /// Why a source is not taken, or nil.
    private func objection(to hello: Hello) -> String? {
        guard hello.role == .source else { return "a destination dialed a destination" }
        guard control == nil, machine.state == .setup, !isRetired else {
            return "this agent is busy with a migration, which is \(machine.state.rawValue)"
        }
        return objection(to: hello.lease)
    }

    private func objection(to claim: LeaseClaim) -> String? {
        switch (claim, settings.lease) {
        case (.absent, nil): return nil
        case (.files, nil): return "the source uses a run lease and this destination none"
        case (.absent, .some): return "the source uses no run lease and this destination does"
        case (.files(let epoch, _, let workload), let lease?):
            guard claim != lease.claim(from: epoch) else { return nil }
            return workload == lease.workload
                ? "the source keeps its run lease in another store"
                : "the source's run lease is '\(workload)' and this destination's '\(lease.workload)'"
        }
    }

    func join(_ handover: Handover<StreamSocket>, _ join: Join) {
        guard let socket = handover.take() else { return }
        guard let peer, control != nil, join.migration == peer.migration, join.nonce == nonce, lanes.awaits(join)
        else {
            return acceptor.refuse(socket, reason: "no migration of that id and nonce waits for a \(join.lane) lane")
        }
        lanes.add(SharedSocket(socket), join)
        if agent != nil { attachAgain() } else { settlePreparation() }
    }

    /// Seconds for a source to answer a probe on the urgent lane.
    private static let probeTimeout = 5

    /// Once memory and lanes are there, learns what the machine and the network cost by themselves. Memory whose source
    /// has left meanwhile goes.
    func settlePreparation() {
        guard prepared != nil else { return }
        guard let control, control.number == acceptedControl else { return perform(machine.memoryPrepared()) }
        guard let lanes = lanes.complete else { return }
        start("probe") { [events, number = control.number] in
            let socket = lanes.urgent[0]
            do {
                try socket.stream.setReceiveTimeout(seconds: DestinationSession.probeTimeout)
                var floor = Report.Floor()
                floor.localFaultP50 = try Floor.localFault()
                floor.roundTripP50 = try Floor.roundTrip(on: socket.stream)
                try socket.stream.setReceiveTimeout(seconds: 0)
                events.yield(.link(number, .probed(floor: floor, lanes)))
            } catch {
                events.yield(.link(number, .failed(reason: "\(error)")))
            }
        }
    }

    /// Memory that comes while devices load finds the lanes waiting.
    func attach(_ lanes: Lanes) {
        guard let guest = prepared else { return }
        prepared = nil
        waitingLanes = lanes
        do throws(SystemError) {
            if waitingMemory != nil { try makeAgent() }
        } catch {
            return perform(machine.memoryRefused(reason: "\(error)"))
        }
        workload = guest
        guest.onEnd { [events] reason in events.yield(.workloadEnded(reason: reason)) }
        perform(machine.memoryPrepared())
    }

    /// Serves memory that has come while devices load, which need some of it.
    func serveArrivingMemory() {
        do throws(SystemError) {
            try makeAgent()
            try agent?.start()
        } catch {
            lose("\(error)")
        }
    }

    private func makeAgent() throws(SystemError) {
        guard let table, let lanes = waitingLanes, let memory = waitingMemory?.take() else { return }
        (waitingLanes, waitingMemory) = (nil, nil)
        let (ranges, aliases, resident) = (memory.ranges, memory.aliases, memory.resident)
        let (resolvesInThread, dropper) = (memory.resolvesInThread, memory.dropper)
        let removals = dropper == nil ? nil : try Removals(in: SharedMemory(anonymousBytes: Removals.byteCount), at: 0)
        let keep = memory.keep
        var pageTable = memory.pageTable
        if let dropper, ranges.contains(where: \.isHuge) { pageTable = try PageTable(of: dropper) }
        let agent = try DestinationAgent(
            userfaultfd: memory.takeUserfaultfd(),
            ranges: ranges,
            resident: resident,
            aliases: aliases,
            table: table,
            prefetch: settings.prefetch,
            faultThreads: settings.faultThreads,
            resolvesInThread: resolvesInThread,
            removals: removals,
            pageTable: pageTable,
            keep: keep
        ) { [events] in events.yield(.agent($0)) }
        try agent.attach(urgent: lanes.urgent, bulk: lanes.bulk)
        lanesControl = control?.number
        self.agent = agent
    }

    /// Takes the lanes of a link that rejoins, once it was said what those before have brought.
    func attachAgain() {
        guard let agent, let lanes = lanes.complete, welcomedControl == control?.number else { return }
        do throws(SystemError) {
            try agent.attach(urgent: lanes.urgent, bulk: lanes.bulk)
            lanesControl = control?.number
        } catch {
            lose("\(error)")
        }
    }

    func receive(_ message: ControlMessage) {
        guard let number = control?.number else { return }
        switch message {
        case .regions, .failure, .refused: break
        default:
            guard number == acceptedControl || agent != nil || isRetired else {
                return lose("the source sent \(message.kind) before REGIONS")
            }
        }
        switch message {
        case .regions(let announcement):
            guard number != acceptedControl else { return lose("the source sent REGIONS twice") }
            self.announcement = announcement
            acceptedControl = number
            tellAccepted()
            perform(machine.hello())
        case .listen:
            limitDevices(bytes: 0)
            perform(machine.listen())
        case .devices(let entries):
            limitDevices(bytes: entries.reduce(0) { $0 + Int($1.byteCount) })
            arriving = ArrivingDevices(entries)
            perform(machine.devices())
        case .deviceData(let bytes):
            if arriving?.add(bytes) != true { lose("the source sent more device state than it announced") }
        case .ping(let number): ping(number)
        case .run(let token, let epoch):
            if timeline[.started] == nil { timeline.note(.runReceived) }
            perform(machine.run(RunGrant(token: RunToken(token), epoch: epoch)))
        case .cancel(let token):
            logger.notice("the source wants the workload back")
            perform(machine.cancel(RunToken(token)))
        case .complete: perform(machine.complete())
        case .bye: perform(machine.bye())
        case .failure(let reason), .refused(let reason): lose("the source says: \(reason)")
        case .hello, .ready, .pong, .devicesFailed, .running, .startFailed, .startRequest, .cancelled,
            .received, .completeAck, .slices, .snapshot:
            lose("the source sent \(message.kind), which it never sends here")
        }
    }

    private func ping(_ number: UInt64) {
        guard arriving?.complete != nil else {
            return lose("the source sent PING before all of the device state it announced")
        }
        devicesDeadline = nil
        perform(machine.ping(number))
    }
}

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
        if let reason = objection(to: hello) { return acceptor.refuse(socket, reason: reason) }
        do throws(SystemError) {
            lastControl += 1
            let number = lastControl
            let lane = try ControlLane(socket) { [events] in events.yield(.control(number, $0)) }
            control = (lane, number)
            arriving = nil
            peer = hello
            nonce = .random()
            timeline.note(.begin)
            let answer = Hello(
                role: .destination,
                capabilities: .startResult,
                migration: hello.migration,
                instance: instance,
                nonce: nonce,
                lease: .absent
            )
            send(.hello(answer), on: lane)
        } catch {
            logger.error("cannot take a migration: \(error)")
        }
    }

    /// Why a source is not taken, or nil.
    private func objection(to hello: Hello) -> String? {
        guard hello.role == .source else { return "a destination dialed a destination" }
        guard control == nil, machine.state == .setup else {
            return "this agent is busy with a migration, which is \(machine.state.rawValue)"
        }
        guard hello.lease == .absent else { return "the source uses a run lease and this destination none" }
        return nil
    }

    func join(_ handover: Handover<StreamSocket>, _ join: Join) {
        guard let socket = handover.take() else { return }
        guard let peer, control != nil, join.migration == peer.migration, join.nonce == nonce, lanes[join.lane] == nil
        else {
            return acceptor.refuse(socket, reason: "no migration of that id and nonce waits for a \(join.lane) lane")
        }
        lanes[join.lane] = Handover(socket)
        settlePreparation()
    }

    /// Seconds for a source to answer a probe on the urgent lane.
    private static let probeTimeout = 5

    /// Once memory and lanes are there, learns what the machine and the network cost by themselves. Memory whose source
    /// has left meanwhile goes.
    func settlePreparation() {
        guard prepared != nil else { return }
        guard let control, control.number == acceptedControl else { return perform(machine.memoryPrepared()) }
        guard let urgent = lanes[.urgent], let bulk = lanes[.bulk] else { return }
        start("probe") { [events, number = control.number] in
            guard let socket = urgent.take() else { return }
            do {
                try socket.setReceiveTimeout(seconds: DestinationSession.probeTimeout)
                var floor = Report.Floor()
                floor.localFaultP50 = try Floor.localFault()
                floor.roundTripP50 = try Floor.roundTrip(on: socket)
                try socket.setReceiveTimeout(seconds: 0)
                events.yield(.probed(number, floor: floor, urgent: Handover(socket), bulk: bulk))
            } catch {
                events.yield(.control(number, .lost(reason: "\(error)")))
            }
        }
    }

    func attach(urgent: Handover<StreamSocket>, bulk: Handover<StreamSocket>) {
        guard let table, let guest = prepared?.take(), let urgent = urgent.take(), let bulk = bulk.take() else {
            return
        }
        prepared = nil
        do throws(SystemError) {
            let workload = guest.workload
            let ranges = guest.ranges
            let resident = guest.resident
            let agent = try DestinationAgent(
                userfaultfd: guest.takeUserfaultfd(),
                ranges: ranges,
                resident: resident,
                table: table
            ) { [events] in events.yield(.agent($0)) }
            try agent.attach(urgent: urgent, bulk: bulk)
            self.agent = agent
            self.workload = workload
            perform(machine.memoryPrepared())
        } catch {
            perform(machine.memoryRefused(reason: "\(error)"))
        }
    }

    func receive(_ message: ControlMessage) {
        guard let (lane, number) = control else { return }
        switch message {
        case .regions(let announcement):
            guard number != acceptedControl else { return lose("the source sent REGIONS twice") }
            lane.allowSilence()
            self.announcement = announcement
            acceptedControl = number
            perform(machine.hello())
        case .listen: perform(machine.listen())
        case .devices(let entries):
            arriving = ArrivingDevices(entries)
            perform(machine.devices())
        case .deviceData(let bytes):
            if arriving?.add(bytes) != true { lose("the source sent more device state than it announced") }
        case .ping(let number): ping(number, on: lane)
        case .run(let token, let epoch):
            timeline.note(.runReceived)
            perform(machine.run(RunGrant(token: RunToken(token), epoch: epoch)))
        case .complete: perform(machine.complete())
        case .bye: perform(machine.bye())
        case .failure(let reason), .refused(let reason): lose("the source says: \(reason)")
        case .hello, .ready, .pong, .devicesFailed, .running, .startFailed, .startRequest, .cancel, .cancelled,
            .unknown,
            .completeAck:
            lose("the source sent \(message.kind), which it never sends here")
        }
    }

    /// The first PING after DEVICES asks whether they have loaded; every other one, whether anybody is there.
    private func ping(_ number: UInt64, on lane: ControlLane) {
        guard let arriving else { return send(.pong(number), on: lane) }
        guard arriving.complete != nil else {
            return lose("the source sent PING before all of the device state it announced")
        }
        perform(machine.ping(number))
    }
}

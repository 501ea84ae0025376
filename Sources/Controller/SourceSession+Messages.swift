import Connections
import LinuxSystem
import PageProtocol
import SourceAgent
import Switchover

/// What the destination says.
extension SourceSession {
    func connected(_ handover: Handover<StreamSocket>, on link: LinkNumber) {
        // Of two attempts that succeed, the first counts.
        guard control == nil, let socket = handover.take() else { return }
        do {
            control = try ControlLane(socket, peerTimeout: settings.peerTimeout) { [events] in
                events.yield(.link(link, .control($0)))
            }
            perform(machine.linkUp())
        } catch {
            perform(machine.linkLost(reason: "\(error)"))
        }
    }

    func join(_ lanes: Lanes, of link: LinkNumber) {
        if rejoining != nil {
            rejoining?.lanes = lanes
            return settleRejoin()
        }
        guard control != nil else { return }
        do {
            try agent.attach(urgent: lanes.urgent, bulk: lanes.bulk, telling: lanesOf(link))
        } catch {
            lose("\(error)")
        }
    }

    func receive(_ message: ControlMessage, on link: LinkNumber) {
        guard let control else { return }
        if case .hello(let hello) = message { return greet(hello, on: link) }
        if case .refused(let reason) = message {
            // It was asked again and does not take this any more: asking goes on only when somebody says so.
            if !machine.isTakeBackPossible { holdsStill = true }
            return perform(machine.refused(reason: reason))
        }
        if case .failure(let reason) = message { return lose("the destination says: \(reason)") }
        guard let peer else { return refuse("the destination sent \(message.kind) before its HELLO") }
        let instance = Switchover.InstanceID(peer.instance)
        switch message {
        case .ready:
            control.allowSilence()
            perform(machine.ready(from: instance, tellsStart: peer.capabilities.contains(.startResult)))
        case .received(let part):
            guard rejoining?.received.add(part) == true else {
                return refuse("the destination sent RECEIVED that does not fit")
            }
            settleRejoin()
        case .pong(let number):
            timeline.note(.loaded)
            perform(machine.pong(number, from: instance))
        case .devicesFailed(let device, let reason):
            perform(machine.devicesFailed(device: device, reason: reason))
        case .running(let token):
            perform(machine.running(RunToken(token), from: instance))
            if machine.isStartedThere { noteStart() }
        case .startFailed(let token, let reason):
            notePromise(token, from: peer)
            perform(machine.startFailed(RunToken(token), reason: reason, from: instance))
        case .cancelled(let token):
            notePromise(token, from: peer)
            perform(machine.cancelled(RunToken(token), from: instance))
        case .startRequest: perform(machine.startRequested(fresh: freshGrant()))
        case .completeAck: perform(machine.completeAcknowledged())
        case .hello, .failure, .refused, .regions, .listen, .devices, .deviceData, .ping, .run, .cancel, .complete,
            .bye, .slices,
            .snapshot:
            refuse("the destination sent \(message.kind), which it never sends here")
        }
    }

    /// What the destination has promised, the lease's record may be mended by, now or later.
    private func notePromise(_ token: UInt64, from peer: Hello) {
        // Token 0 stands for no RUN, and for the records that an instance makes for itself.
        if token != 0 { settings.lease?.notePromise(token: token, from: peer.instance.description) }
    }

    private func greet(_ hello: Hello, on link: LinkNumber) {
        guard peer == nil || rejoining != nil else { return refuse("the destination sent HELLO twice") }
        guard hello.role == .destination else { return refuse("the peer at \(destination) is a source too") }
        guard hello.migration == migration else { return refuse("the destination answered for another migration") }
        guard !hello.rejoins else { return refuse("the destination's HELLO rejoins, which only a source's does") }
        guard hello.lease == self.hello(rejoins: false).lease else {
            return refuse("the destination answered with another run lease")
        }
        peer = hello
        joinLanes(as: hello, of: link)
        if rejoining != nil { perform(machine.welcomed(by: Switchover.InstanceID(hello.instance))) }
    }

    private func joinLanes(as hello: Hello, of link: LinkNumber) {
        start("join-lanes") { [destination, events] in
            do throws(SystemError) {
                let lanes = try Lanes(to: destination, as: hello, urgentLanes: hello.urgentLanes)
                events.yield(.link(link, .lanesJoined(lanes)))
            } catch {
                events.yield(.link(link, .failed(reason: "\(error)")))
            }
        }
    }

    /// The peer broke the protocol in a way that the machine does not see.
    private func refuse(_ reason: String) {
        fail(reason)
    }
}

extension Switchover.InstanceID {
    init(_ instance: PageProtocol.InstanceID) {
        self.init(high: UInt64(instance.value >> 64), low: UInt64(truncatingIfNeeded: instance.value))
    }
}

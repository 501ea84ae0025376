import Connections
import LinuxSystem
import PageProtocol
import SourceAgent
import Switchover

/// What the destination says.
extension SourceSession {
    func connected(_ handover: Handover<StreamSocket>) {
        // Of two attempts that succeed, the first counts.
        guard control == nil, let socket = handover.take() else { return }
        do {
            lastControl += 1
            let number = lastControl
            control = try ControlLane(socket, peerTimeout: settings.peerTimeout) { [events] in
                events.yield(.control(number, $0))
            }
            perform(machine.linkUp())
        } catch {
            perform(machine.linkLost(reason: "\(error)"))
        }
    }

    func join(_ lanes: Lanes) {
        if rejoining != nil {
            rejoining?.lanes = lanes
            return settleRejoin()
        }
        guard control != nil else { return }
        do {
            try agent.attach(urgent: lanes.urgent, bulk: lanes.bulk)
        } catch {
            lose("\(error)")
        }
    }

    func receive(_ message: ControlMessage) {
        guard let control else { return }
        if case .hello(let hello) = message { return greet(hello) }
        if case .refused(let reason) = message {
            // It was asked again and does not take this any more: asking goes on only when somebody says so.
            if machine.state == .postcopyRecoverSetup { holdsStill = true }
            return perform(machine.refused(reason: reason))
        }
        if case .failure(let reason) = message { return lose("the destination says: \(reason)") }
        guard let peer else { return refuse("the destination sent \(message.kind) before its HELLO") }
        let instance = Switchover.InstanceID(peer.instance)
        switch message {
        case .ready:
            control.allowSilence()
            perform(machine.ready(from: instance))
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
            timeline.note(.running)
            perform(machine.running(RunToken(token), from: instance))
            if machine.isStartedThere {
                releaseMemory()
                push()
            }
        case .startFailed(let token, let reason):
            perform(machine.startFailed(RunToken(token), reason: reason, from: instance))
        case .cancelled(let token): perform(machine.cancelled(RunToken(token), from: instance))
        case .startRequest: perform(machine.startRequested(fresh: freshGrant()))
        case .completeAck: perform(machine.completeAcknowledged())
        case .hello, .failure, .refused, .regions, .listen, .devices, .deviceData, .ping, .run, .cancel, .complete,
            .bye, .slices,
            .snapshot:
            refuse("the destination sent \(message.kind), which it never sends here")
        }
    }

    private func greet(_ hello: Hello) {
        guard peer == nil || rejoining != nil else { return refuse("the destination sent HELLO twice") }
        guard hello.role == .destination else { return refuse("the peer at \(destination) is a source too") }
        guard hello.migration == migration else { return refuse("the destination answered for another migration") }
        guard hello.capabilities.contains(.startResult) else {
            return refuse("the destination cannot say whether a start worked; run the same release on both hosts")
        }
        peer = hello
        joinLanes(as: hello)
        if rejoining != nil { perform(machine.welcomed(by: Switchover.InstanceID(hello.instance))) }
    }

    private func joinLanes(as hello: Hello) {
        start("join-lanes") { [destination, events, number = lastControl] in
            do throws(SystemError) {
                events.yield(.lanesJoined(try Lanes(to: destination, as: hello, urgentLanes: hello.urgentLanes)))
            } catch {
                events.yield(.control(number, .lost(reason: "\(error)")))
            }
        }
    }

    /// The peer broke the protocol in a way that the machine does not see.
    private func refuse(_ reason: String) {
        events.yield(.control(lastControl, .lost(reason: reason)))
    }
}

extension Switchover.InstanceID {
    init(_ instance: PageProtocol.InstanceID) {
        self.init(high: UInt64(instance.value >> 64), low: UInt64(truncatingIfNeeded: instance.value))
    }
}

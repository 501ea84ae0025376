import Connections
import DestinationAgent
import Guest
import LinuxSystem
import Logging
import PageProtocol
import Switchover

/// What the machine wants done.
extension DestinationSession {
    func perform(_ actions: [DestinationAction]) {
        note()
        for action in actions { perform(action) }
        // The last page may have come, or the last word been given, while no link stands.
        if machine.state == .completed, control == nil { stopAgent() }
        giveSourceUpLater()
        discardFailed()
    }

    private func perform(_ action: DestinationAction) {
        switch action {
        case .send(let message): send(message)
        case .proceed: perform(machine.proceed())
        case .prepareMemory: prepareMemory()
        case .discardMemory: discardMemory()
        case .serveFaults: serveFaults()
        case .loadDevices: loadDevices()
        case .acquire: acquire()
        case .commitLease(let grant): commitLease(grant)
        case .returnLease(let grant): returnLease(grant)
        case .start: startWorkload()
        case .undo: undo()
        case .contSucceeded:
            waitingConts.forEach { $0.resume() }
            waitingConts = []
        case .contFailed(let reason):
            failConts(reason)
        case .closeLink(let reason): hangUp(reason: isLastWordSent ? nil : reason)
        case .violation(let what):
            logger.error("the source breaks the protocol: \(what)")
            hangUp(reason: what)
        }
    }

    private func send(_ message: DestinationMessage) {
        guard let (lane, _) = control else { return }
        switch message {
        case .ready:
            // From here on the operator decides when it goes on.
            lane.allowSilence()
            send(.ready, on: lane)
        case .refused(let reason):
            isLastWordSent = true
            send(.refused(reason: reason), on: lane)
        case .pong(let number):
            isPongSent = true
            send(.pong(number), on: lane)
        case .devicesFailed(let device, let reason):
            isLastWordSent = true
            send(.devicesFailed(device: device, reason: reason), on: lane)
        case .running(let token): send(.running(token: token.value), on: lane)
        case .startFailed(let token, let reason): send(.startFailed(token: token.value, reason: reason), on: lane)
        case .welcome: welcome(on: lane)
        case .cancelled(let token): send(.cancelled(token: token.value), on: lane)
        case .startRequest: send(.startRequest, on: lane)
        case .completeAck: send(.completeAck, on: lane)
        }
    }

    private func prepareMemory() {
        guard let announcement else { return perform(machine.memoryRefused(reason: lack("the guest's description"))) }
        do throws(ProtocolError) {
            table = try RegionTable(announcement.regions)
        } catch {
            return perform(machine.memoryRefused(reason: "\(error)"))
        }
        start("prepare") { [landing, events, logger] in
            do {
                let workload = try landing.prepare(announcement.description) { events.yield(.memory(Handover($0))) }
                events.yield(.prepared(workload))
            } catch {
                events.yield(.prepareFailed(reason: "\(error)"))
                logger.warning("refused the workload that was to come: \(error)")
            }
        }
    }

    private func report(_ event: Event) { events.yield(event) }

    /// What to tell where an action finds nothing to act on, which its state rules out.
    private func lack(_ what: String) -> String { "the agent has lost \(what), which is a fault of its own" }

    func discardMemory() {
        collapsing = nil
        if let agent {
            // The workload goes last: until then the agent may place pages in its memory.
            runBlocking("stop", in: stops) { [workload] in
                agent.stop()
                withExtendedLifetime(workload) {}
            }
        }
        agent = nil
        workload = nil
        prepared = nil
        waitingMemory = nil
    }

    private func serveFaults() {
        do throws(SystemError) {
            try agent?.start()
        } catch {
            lose("\(error)")
        }
    }

    private func loadDevices() {
        guard let workload else {
            return report(.loadFailed(DeviceError(device: "all devices", reason: lack("the workload"))))
        }
        let states = arriving?.complete ?? []
        arriving = nil
        timeline.note(.loadBegun)
        start("load") { [events] in
            do throws(DeviceError) {
                events.yield(.loaded(Handover(try workload.devices.load(states))))
            } catch {
                events.yield(.loadFailed(error))
            }
        }
    }

    private func acquire() {
        guard let workload else { return report(.acquireFailed(reason: lack("the workload"))) }
        start("acquire") { [events] in
            do throws(DeviceError) {
                try workload.devices.acquire()
                events.yield(.acquired)
            } catch {
                events.yield(.acquireFailed(reason: "\(error)"))
            }
        }
    }

    func undo() {
        // Without a workload nothing was acquired.
        guard let workload else { return report(.undone) }
        start("undo") { [events] in
            do throws(DeviceError) {
                try workload.devices.release()
                events.yield(.undone)
            } catch {
                events.yield(.undoFailed(error))
            }
        }
    }

    private func commitLease(_ grant: RunGrant) {
        guard let lease = settings.lease, let source = peer?.instance.description else {
            return report(.committed(.refused(reason: lack("the run lease"))))
        }
        start("lease") { [events] in
            events.yield(.committed(lease.take(after: grant.epoch, token: grant.token.value, from: source)))
        }
    }

    private func returnLease(_ grant: RunGrant) {
        // Without a lease nothing was written.
        guard let lease = settings.lease, let owner = peer?.instance.description else {
            return report(.leaseReturned)
        }
        start("lease") { [events, logger] in
            lease.giveBack(to: owner, token: grant.token.value) { error in
                logger.warning("cannot give the run lease back yet: \(error)")
            }
            events.yield(.leaseReturned)
        }
    }

    private func startWorkload() {
        guard let workload, let loaded else {
            return report(.startFailed(reason: lack("the workload, or the proof that its devices have loaded")))
        }
        start("start") { [events] in
            do {
                let result: StartResult
                if let proof = loaded.take() {
                    result = try WorkloadStart.arrived(workload, proof)
                } else {
                    // A start that executed nothing has left the devices as they were loaded.
                    result = try WorkloadStart.again(workload)
                }
                switch result {
                case .runs: events.yield(.started)
                case .ended(let reason): events.yield(.startEnded(reason: reason))
                }
            } catch {
                events.yield(.startFailed(reason: "\(error)"))
            }
        }
    }
}

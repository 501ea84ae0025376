import Connections
import Guest
import Identity
import LinuxSystem
import Logging
import PageFetcher
import PageProtocol
import RunLease
import Switchover

/// Carrying out the machine's actions.
extension DestinationSession {
    func perform(_ actions: [DestinationAction]) {
        note()
        for action in actions { perform(action) }
        // The last page may have arrived, or the last message been sent, while no link stands.
        if machine.state == .completed, link == nil { stopFetcher() }
        giveSourceUpLater()
        discardFailed()
        tellChange()
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
            waiting.conts.resume()
        case .contFailed(let reason): waiting.conts.refuse(reason)
        case .closeLink(let reason):
            let told = isCancelled ? DestinationSession.cancelReason : reason
            hangUp(reason: link?.isLastWordSent == true ? nil : told)
        case .violation(let what):
            logger.error("the source breaks the protocol: \(what)")
            hangUp(reason: what)
        }
    }

    private func send(_ message: DestinationMessage) {
        guard let link else { return }
        let control = link.control
        switch message {
        case .ready:
            // From now on the source waits for an operator, so it may be silent.
            control.allowSilence()
            control.send(.ready)
        case .refused(let reason):
            self.link?.isLastWordSent = true
            control.send(.refused(reason: reason))
        case .pong(let number):
            arrival?.isPongSent = true
            control.send(.pong(number))
        case .devicesFailed(let device, let reason):
            self.link?.isLastWordSent = true
            control.send(.devicesFailed(device: device, reason: reason))
        case .running(let token): control.send(.running(token: token))
        case .startFailed(let token, let reason): control.send(.startFailed(token: token, reason: reason))
        case .welcome: welcome(on: link)
        case .cancelled(let token): control.send(.cancelled(token: token))
        case .startRequest: control.send(.startRequest)
        case .completeAck: control.send(.completeAck)
        }
    }

    private func prepareMemory() {
        let description = required(arrival).announcement.description
        threads.work.run("prepare") { [landing, events, logger] in
            do {
                let workload = try landing.prepare(description) { events.add(.memory(Handover($0))) }
                events.add(.prepared(workload))
            } catch {
                events.add(.prepareFailed(reason: "\(error)"))
                logger.warning("cannot prepare for the arriving workload: \(error)")
            }
        }
    }

    /// Reports the result of preparing the memory to the machine, and then handles a source that has waited.
    ///
    /// - Parameter reason: why the memory cannot be prepared; nil if it is ready.
    func endPreparation(refusing reason: String? = nil) {
        if reason != nil { arrival?.preparation = .ended }
        perform(reason.map { machine.memoryRefused(reason: $0) } ?? machine.memoryPrepared())
        guard let link, case .held(let announcement) = link.regions else { return }
        accept(announcement, on: link)
    }

    /// Frees the memory of the workload that has arrived, or was about to.
    func discardMemory() {
        guard let (fetcher, workload) = arrival?.free() else { return }
        // The workload is kept until the fetcher has stopped, since the fetcher may place pages in its memory.
        threads.partings.run("stop") {
            fetcher.stop()
            withExtendedLifetime(workload) {}
        }
    }

    /// What an action needs; the machine asks for the action only if it is there.
    private func required<Value>(_ value: Value?, _ action: StaticString = #function) -> Value {
        guard let value else { preconditionFailure("\(action) needs what has not arrived, or was freed") }
        return value
    }

    private func serveFaults() {
        do throws(SystemError) {
            try arrival?.fetcher?.start()
        } catch {
            endLink("\(error)")
        }
    }

    private func loadDevices() {
        let workload = required(arrival?.workload)
        let states = arrival?.states.take() ?? []
        timeline.note(.loadBegun)
        threads.work.run("load") { [events] in
            do throws(DeviceError) {
                events.add(.loaded(Handover(try workload.devices.load(states))))
            } catch {
                events.add(.loadFailed(error))
            }
        }
    }

    private func acquire() {
        let workload = required(arrival?.workload)
        threads.work.run("acquire") { [events] in
            do throws(DeviceError) {
                try workload.devices.acquire()
                events.add(.acquired)
            } catch {
                events.add(.acquireFailed(reason: "\(error)"))
            }
        }
    }

    func undo() {
        let workload = required(arrival?.workload)
        threads.work.run("undo") { [events] in
            do throws(DeviceError) {
                try workload.devices.release()
                events.add(.undone)
            } catch {
                events.add(.undoFailed(error))
            }
        }
    }

    private func commitLease(_ grant: RunGrant) {
        let (lease, source) = (required(settings.lease), required(peer).instance.description)
        threads.work.run("lease") { [events] in
            events.add(.committed(lease.take(after: grant.epoch, token: grant.token, from: source)))
        }
    }

    private func returnLease(_ grant: RunGrant) {
        let (lease, owner) = (required(settings.lease), required(peer).instance.description)
        threads.work.run("lease") { [events, logger] in
            lease.giveBack(to: owner, token: grant.token) { error in
                logger.warning("cannot give the run lease back yet: \(error)")
            }
            events.add(.leaseReturned)
        }
    }

    /// Whether the workload was paused at its source, and no `cont` here asks for it to run.
    private var staysPaused: Bool {
        peer?.capabilities.contains(.paused) == true && !settings.startsStopped && waiting.conts.isEmpty
    }

    func startWorkload() {
        let (workload, loaded) = (required(arrival?.workload), required(arrival?.loaded))
        if workload.stalls.isEmpty { arrival?.fetcher?.countStalls() }
        if staysPaused {
            // The next start is that of this agent's own workload, which needs no proof.
            _ = loaded.take()
            return events.add(.arrivedPaused)
        }
        threads.work.run("start") { [events] in
            do {
                let result: StartResult
                if let proof = loaded.take() {
                    result = try WorkloadStart.arrived(workload, proof)
                } else {
                    // The earlier start executed nothing, so the devices are still as they were loaded.
                    result = try WorkloadStart.again(workload)
                }
                switch result {
                case .runs: events.add(.started)
                case .ended(let reason): events.add(.startEnded(reason: reason))
                }
            } catch {
                events.add(.startFailed(reason: "\(error)"))
            }
        }
    }
}

import Connections
import Guest
import LinuxSystem
import Logging
import PageProtocol
import SourceAgent
import Switchover

/// What the machine wants done.
extension SourceSession {
    func perform(_ actions: [SourceAction]) {
        note()
        for action in actions { perform(action) }
        if machine.state == .completed { letMemoryGo() }
    }

    /// Gives the memory of a workload that has moved away back to the host: nobody reads it here any more.
    private func letMemoryGo() {
        guard !hasLetMemoryGo else { return }
        hasLetMemoryGo = true
        start("let-go") { [agent, logger] in
            do throws(SystemError) {
                try agent.discardMemory()
            } catch {
                logger.warning("the memory of the workload that has moved stays taken: \(error)")
            }
        }
    }

    private func perform(_ action: SourceAction) {
        switch action {
        case .connect(let link): connect(link)
        // Its number is the machine's when the destination is reached.
        case .redial: startRedial()
        case .send(let message): send(message)
        case .proceed: perform(machine.proceed())
        case .stop:
            start("stop") { [workload, events] in
                do {
                    try workload.prepareToMove()
                    events.yield(.stopBegun(at: MonotonicClock.now()))
                    try workload.stop()
                    events.yield(.stopped)
                } catch {
                    events.yield(.stopFailed(reason: "\(error)"))
                }
            }
        case .save:
            start("save") { [workload, events] in
                do throws(DeviceError) {
                    events.yield(.saved(try workload.devices.save()))
                } catch {
                    events.yield(.saveFailed(error))
                }
            }
        case .releaseLocks:
            start("release") { [workload, events] in
                do throws(DeviceError) {
                    try workload.devices.release()
                    events.yield(.locksReleased)
                } catch {
                    events.yield(.releaseFailed(error))
                }
            }
        case .seizeLease(let grant): seizeLease(grant)
        case .regainLease(let token): regainLease(by: token)
        case .resume: resume()
        case .resync: resync()
        case .cancelSucceeded:
            waitingCancels.forEach { $0.resume() }
            waitingCancels = []
        case .cancelFailed(let reason), .cancelUnknown(let reason):
            waitingCancels.forEach { $0.resume(throwing: CommandRefused(reason: reason)) }
            waitingCancels = []
        case .closeLink(let reason): hangUp(reason: reason)
        case .violation(let what):
            logger.error("\(destination) breaks the protocol: \(what)")
            hangUp(reason: what)
        }
    }

    /// Runs blocking work on a thread of its own.
    func start(_ name: String, in group: ThreadGroup? = nil, _ body: @escaping @Sendable () -> Void) {
        do throws(SystemError) {
            try (group ?? work).run(name, body)
        } catch {
            // Without a thread nothing can go on; the work is done here, late rather than never.
            logger.warning("\(error)")
            body()
        }
    }

    private func connect(_ link: LinkNumber) {
        start("connect") { [destination, events] in
            do throws(SystemError) {
                events.yield(.link(link, .connected(Handover(try StreamSocket(connectingTo: destination)))))
            } catch {
                events.yield(.link(link, .connectFailed(reason: "\(error)")))
            }
        }
    }

    /// Lets the workload go on here. No page is sent any more before its memory may change.
    private func resume() {
        agent.hangUp()
        start("resume") { [workload, events, agent] in
            agent.thaw()
            do {
                try workload.devices.acquire()
                try WorkloadStart.inPlace(workload)
                events.yield(.resumed)
            } catch {
                var reason = "\(error)"
                do throws(DeviceError) {
                    try workload.devices.release()
                } catch {
                    reason += "; what was prepared for it is not undone: \(error)"
                }
                events.yield(.resumeFailed(reason: reason))
            }
        }
    }

    private func send(_ message: SourceMessage) {
        guard let control else { return }
        switch message {
        case .hello:
            send(.hello(hello(rejoins: false)), on: control)
            send(.regions(guest: GuestAnnouncement(workload.description)), on: control)
        case .rejoin:
            let pageCounts = workload.description.regions.map(\.pageCount)
            rejoining = Rejoining(received: ReceivedMap(pageCounts: pageCounts))
            send(.hello(hello(rejoins: true)), on: control)
        case .listen:
            agent.freeze()
            send(.listen, on: control)
        case .devices: sendDevices(on: control)
        case .ping(let number): send(.ping(number), on: control)
        case .run(let grant):
            timeline.note(.runSent)
            send(.run(token: grant.token.value, epoch: grant.epoch), on: control)
            // A destination that cannot say so counts as started once it may start.
            if machine.isStartedThere { noteStart() }
            pushSoon()
        case .cancel(let token): send(.cancel(token: token.value), on: control)
        case .complete: send(.complete, on: control)
        case .bye:
            send(.bye, on: control)
            hangUp(reason: nil)
        }
    }

    private func sendDevices(on control: ControlLane) {
        do throws(ProtocolError) {
            for frame in try DeviceTransfer.frames(of: savedDevices) { control.send(frame: frame) }
            savedDevices = []
        } catch {
            // More state than the protocol carries: the workload is taken back.
            fail("\(error)")
        }
    }

    func hello(rejoins: Bool) -> Hello {
        Hello(
            role: .source,
            rejoins: rejoins,
            capabilities: .startResult,
            migration: migration,
            instance: instance,
            nonce: .zero,
            lease: settings.lease?.claim(from: firstEpoch) ?? .absent
        )
    }

    /// Pushed pages would keep both hosts busy while the start is all that counts; one that takes long is not waited
    /// for.
    private func pushSoon() {
        guard let link = machine.link else { return }
        Task { [events] in
            await rest(for: .milliseconds(20))
            events.yield(.link(link, .pushDue))
        }
    }

    /// The workload has started at the destination, as that has said, or as is taken to be so.
    func noteStart() {
        timeline.note(.running)
        releaseMemory()
        push()
    }

    /// The workload runs at the destination: what is sent is not needed here any more.
    func releaseMemory() {
        guard settings.releasesMemory, settings.pushes else { return }
        logger.warning("memory is given back as it is sent: if the link breaks, pages in flight are gone for good")
        // What was pushed before may be much.
        start("release") { [agent] in agent.releaseSentMemory() }
    }

    func push() {
        guard settings.pushes else { return }
        do throws(SystemError) {
            try agent.startPush()
        } catch {
            logger.error("pages are sent on demand only: \(error)")
        }
    }
}

import Connections
import Guest
import Identity
import LinuxSystem
import Logging
import PageProtocol
import PageServer
import RunLease
import Switchover

/// Carrying out the machine's actions.
extension SourceSession {
    func perform(_ actions: [SourceAction]) {
        note()
        for action in actions { perform(action) }
        if machine.state == .completed { letMemoryGo() }
    }

    /// Frees the memory of a workload that has moved away.
    private func letMemoryGo() {
        guard !course.hasLetMemoryGo else { return }
        course.hasLetMemoryGo = true
        threads.partings.run("let-go") { [pageServer, workload, logger] in
            do throws(SystemError) {
                try pageServer.discardMemory()
            } catch {
                logger.warning("cannot free the memory of the workload that has moved: \(error)")
            }
            // Only now, since a process that was told may use its memory for the next workload.
            do {
                try workload.hasMovedAway()
            } catch {
                logger.warning("cannot tell the workload that it has moved for good: \(error)")
            }
        }
    }

    private func perform(_ action: SourceAction) {
        switch action {
        case .connect(let link): connect(link)
        // The new link gets its number from the machine once the destination is reached.
        case .redial: startRedial()
        case .send(let message): send(message)
        case .proceed: perform(machine.proceed())
        case .prepare: prepare()
        case .stop: stop()
        case .save:
            threads.work.run("save") { [workload, events, ahead = deviceStates.ahead] in
                do throws(DeviceError) {
                    events.add(.saved(ahead.changes(to: try workload.devices.save())))
                } catch {
                    events.add(.saveFailed(error))
                }
            }
        case .releaseLocks:
            threads.work.run("release") { [workload, events] in
                do throws(DeviceError) {
                    try workload.devices.depart()
                    events.add(.locksReleased)
                } catch {
                    events.add(.releaseFailed(error))
                }
            }
        case .seizeLease(let grant): seizeLease(grant)
        case .regainLease(let token): regainLease(by: token)
        case .resume: resume()
        case .resync: resync()
        case .cancelSucceeded:
            waiting.cancels.resume()
        case .cancelFailed(let reason), .cancelUnknown(let reason):
            waiting.cancels.refuse(reason + wayBack)
        case .closeLink(let reason): hangUp(reason: reason)
        case .violation(let what):
            logger.error("\(destination) breaks the protocol: \(what)")
            hangUp(reason: what)
        }
    }

    /// Does what the move needs while the workload runs.
    private func prepare() {
        // The states of a paused workload do not change any more, and are sent once.
        let takesAhead = peer?.capabilities.contains(.stateAhead) == true && !settings.isPaused
        threads.work.run("prepare") {
            [
                workload, events, logger, ahead = deviceStates.ahead, control = takesAhead ? link?.control : nil
            ] in
            do {
                try workload.prepareToMove()
            } catch {
                return events.add(.stopFailed(reason: "\(error)"))
            }
            if let control {
                do {
                    try ahead.send(workload.devices, over: control)
                } catch {
                    logger.notice("cannot send device states before the stop: \(error)")
                }
            }
            events.add(.prepared)
        }
    }

    private func stop() {
        // A paused workload is stopped already.
        if settings.isPaused { return events.add(.stopped) }
        states.hold()
        threads.work.run("stop") { [workload, events] in
            events.add(.stopBegun(at: MonotonicClock.now()))
            do {
                try workload.stop()
                events.add(.stopped)
            } catch {
                events.add(.stopFailed(reason: "\(error)"))
            }
        }
    }

    private func connect(_ link: LinkNumber) {
        threads.work.run("connect") { [destination, events] in
            do throws(SystemError) {
                events.add(.link(link, .connected(Handover(try StreamSocket(connectingTo: destination)))))
            } catch {
                events.add(.link(link, .connectFailed(reason: "\(error)")))
            }
        }
    }

    /// Resumes the workload here, or leaves it paused if it was paused before.
    ///
    /// The lanes end first: no page may be sent once the memory can change.
    private func resume() {
        pageServer.hangUp()
        threads.work.run("resume") { [workload, events, pageServer, isPaused = settings.isPaused] in
            pageServer.thaw()
            do {
                try workload.devices.acquire()
                if !isPaused { try WorkloadStart.inPlace(workload) }
                events.add(.resumed)
            } catch {
                var reason = "\(error)"
                do throws(DeviceError) {
                    try workload.devices.release()
                } catch {
                    reason += "; the devices could not be released: \(error)"
                }
                events.add(.resumeFailed(reason: reason, isFinal: error is WorkloadHasEnded))
            }
        }
    }

    private func send(_ message: SourceMessage) {
        guard let control = link?.control else { return }
        switch message {
        case .hello:
            control.send(.hello(hello(rejoins: false)))
            control.send(.regions(guest: GuestAnnouncement(workload.description)))
        case .rejoin:
            let pageCounts = workload.description.regions.map(\.pageCount)
            link?.rejoining = Rejoining(received: ReceivedMap(pageCounts: pageCounts))
            control.send(.hello(hello(rejoins: true)))
        case .listen:
            pageServer.freeze()
            control.send(.listen)
        case .devices: sendDevices(on: control)
        case .ping(let number): control.send(.ping(number))
        case .run(let grant):
            timeline.note(.runSent, of: grant.token, until: .running)
            control.send(.run(token: grant.token, epoch: grant.epoch))
            // A destination that does not report its start counts as started once it may start.
            if machine.isStartedThere { noteStart() }
            pushSoon()
        case .cancel(let token): control.send(.cancel(token: token))
        case .complete: control.send(.complete)
        case .bye:
            control.send(.bye)
            hangUp(reason: nil)
        }
    }

    private func sendDevices(on control: ControlLink) {
        do throws(ProtocolError) {
            for frame in try DeviceTransfer.frames(of: deviceStates.saved) { control.send(frame: frame) }
            deviceStates.saved = []
        } catch {
            // The states exceed the protocol's bounds: the workload is taken back.
            control.fail("\(error)")
        }
    }

    func hello(rejoins: Bool) -> Hello {
        Hello(
            role: .source,
            rejoins: rejoins,
            bulkLanes: link?.pushLanes ?? 1,
            capabilities: settings.isPaused ? [.startResult, .aheadRequest, .paused] : [.startResult, .aheadRequest],
            migration: migration,
            instance: settings.instance,
            nonce: .zero,
            lease: settings.lease?.claim(from: lease.firstEpoch) ?? .absent
        )
    }

    /// Starts the push 20 ms after RUN.
    ///
    /// An earlier push would compete with the start for both hosts; a start that takes longer does not hold up the
    /// push.
    private func pushSoon() {
        guard let link = machine.link else { return }
        events.add(.link(link, .pushDue), after: .milliseconds(20))
    }

    /// Handles the reported or assumed start at the destination: logs the downtime, frees sent pages, and starts the
    /// push.
    func noteStart() {
        if timeline[.running] == nil {
            timeline.note(.running)
            tellDeparture()
        }
        releaseMemory()
        push()
    }

    private func tellDeparture() {
        guard !settings.isPaused else {
            return logger.notice("the workload is at \(destination) now, paused as before; its memory follows")
        }
        // The downtime itself, in the report, also needs a time of the destination.
        let report = snapshot().downtimeMicroseconds.map {
            ": its start was reported \($0.asTime) after its last operation here"
        }
        logger.notice("the workload runs at \(destination) now\(report ?? ""); its memory follows")
    }

    /// Starts to free sent pages if `release-ram` is set, since the workload runs at the destination.
    func releaseMemory() {
        guard settings.releasesMemory, settings.pushes else { return }
        logger.warning("memory is freed as it is sent: if the link breaks, pages in flight are lost")
        // On a thread of its own, since many pages may have been pushed before.
        threads.work.run("release") { [pageServer] in pageServer.releaseSentMemory() }
    }

    func push() {
        guard settings.pushes else { return }
        do throws(SystemError) {
            try pageServer.startPush()
        } catch {
            logger.error("cannot push pages, only requested pages are sent: \(error)")
        }
    }
}

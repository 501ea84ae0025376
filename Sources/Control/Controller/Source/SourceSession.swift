import Compression
import Connections
import Guest
import Identity
import LinuxSystem
import Logging
import PageProtocol
import PageServer
import QMP
import RunLease
import Switchover
import Telemetry

/// Drives a ``SourceMachine`` through one migration: reports events to the machine, and carries out the machine's
/// actions.
actor SourceSession {
    /// An event from outside the session, handled in the order of arrival.
    enum Event: Sendable {
        case link(LinkNumber, LinkEvent)
        case redialed(Redial, Handover<StreamSocket>)
        case redialGivenUp(Redial, reason: String)
        /// The time of the search with this number is over.
        case searchOver(Int)
        case notReleased(reason: String)
        /// Everything is done that the move needs while the workload runs.
        case prepared
        case stopBegun(at: UInt64)
        case stopped
        case stopFailed(reason: String)
        case saved([DeviceSet.Saved])
        case saveFailed(DeviceError)
        case locksReleased
        case releaseFailed(DeviceError)
        case seized(WorkloadLease.Taking)
        case regained(WorkloadLease.Regaining)
        case resumed
        case resumeFailed(reason: String, isFinal: Bool)
        case cancelOverdue(Int)
        /// The time is over for which this word that the destination is gone waits.
        case goneOverdue(Int)
        case leaseDue
        case wordOverdue
        /// The time is over for which events for clients are held back.
        case eventsDue
    }

    /// An event of one link; ignored unless the link is the machine's current one.
    enum LinkEvent: Sendable {
        case connected(Handover<StreamSocket>)
        case connectFailed(reason: String)
        case lanesJoined(Lanes)
        case control(ControlLink.Event)
        case laneLost(Lane, reason: String)
        /// Pages that the destination lacks can no longer be read here.
        case memoryLost(reason: String)
        case everyPageSent
        /// This side has found a reason to end the link.
        case failed(reason: String)
        case pushDue
        /// The pages that the destination lacks are known, and are sent again on these lanes unless some of them are
        /// lost.
        ///
        /// - `lost`: the number of those pages that were freed here.
        case resent(lost: Int, Lanes)
        /// The link has served for the peer timeout, so it counts as stable.
        case held
    }

    /// The moments that the report is computed from.
    enum Moment: Hashable {
        case begin, ready, stopAsked, lastOperation, stopped, saved, loaded, runSent, running, takenBack, end
    }

    /// The settings of a source's migrations.
    struct Settings: Sendable {
        /// The instance id of this agent.
        let instance: InstanceID
        /// The instance id required of the destination; nil for any.
        let wanted: InstanceID?
        /// Whether the workload is paused: it then arrives paused, and stays paused if it is taken back.
        var isPaused: Bool
        var pushes: Bool
        /// The number of bulk lanes; nil to choose it by the link.
        var pushLanes: Int?
        var releasesMemory: Bool
        var polling: Duration
        var compression: PushCompression
        /// Whether pages are counted by their place, for a live page.
        var countsPlaces = false
        var refusalPolicy: StartRefusalPolicy
        var pausesBeforeSwitchover = false
        var lease: WorkloadLease?
        var peerTimeout: Duration
        var recoveryTime: Duration
        /// How long an exiting agent waits for the destination to confirm that the workload was taken back.
        var wordTime: Duration
        /// The clock that time limits go by.
        var clock: any Clock<Duration>
    }

    /// The pause between two attempts to reach the run lease.
    static let leasePause = Duration.seconds(5)

    let workload: any Workload
    let settings: Settings
    var destination: SocketAddress
    let logger: Logger
    let sink: EventSink
    nonisolated let events: EventQueue<Event>
    let threads: SessionThreads
    let migration = MigrationID.random()
    let pageServer: PageServer

    var machine: SourceMachine
    var lease: LeaseShare
    var states: StateLog
    /// The states that the destination has told, or that its messages imply.
    var destinationPath = StatePath()
    var timeline = Timeline<Moment>()
    var link: Link?
    var peer: Hello?
    /// The number of bulk lanes of the latest link; nil before the destination has answered.
    var pushLanes: Int?
    var redialing = Redialing()
    var deviceStates = DeviceStates()
    var course = Course()
    var waiting = Waiting()
    var goneWords = GoneWords()
    var leaving = Leaving.no
    /// Whether the lease's record is being written to name the source again.
    ///
    /// The write may take long. Until the write ends, the lease must not be given to anyone else.
    var isRegainingLease: Bool { machine.isRegainingLease }
    /// Whether the agent was asked to exit.
    var isLeaving: Bool { leaving != .no }

    nonisolated var unownedExecutor: UnownedSerialExecutor { threads.session.executor }

    /// Makes a session for a workload that is in this process.
    ///
    /// - Parameters:
    ///   - workload: the workload to move.
    ///   - regions: the workload's memory, in the order of its description.
    ///   - destination: the address to dial.
    ///   - settings: how the source behaves.
    ///   - epoch: the epoch of the lease record that names this agent; 0 without a lease.
    ///   - logger: receives the session's log.
    ///   - sink: receives each state of the migration, and the workload's stop and resume.
    /// - Throws: `ProtocolError` if the memory exceeds the protocol's bounds, `SystemError` if the kernel refuses a
    ///   descriptor.
    init(
        workload: any Workload,
        regions: [SourceRegion],
        destination: SocketAddress,
        settings: Settings,
        epoch: UInt64,
        logger: Logger,
        sink: EventSink
    ) throws {
        self.workload = workload
        self.destination = destination
        self.settings = settings
        lease = LeaseShare(epoch: epoch, firstEpoch: epoch)
        machine = SourceMachine(
            afterStartRefusal: settings.refusalPolicy,
            usesLease: settings.lease != nil,
            pausesBeforeSwitchover: settings.pausesBeforeSwitchover
        )
        var logger = logger
        logger[metadataKey: "migration"] = "\(migration)"
        self.logger = logger
        let events = EventQueue<Event>(clock: settings.clock)
        self.events = events
        threads = try SessionThreads(logger: logger)
        self.sink = sink
        states = StateLog(role: .source, sink: sink) { events.add(.eventsDue, after: StateLog.holdTime) }
        let announcement = GuestAnnouncement(workload.description)
        let table = try RegionTable(announcement.regions)
        pageServer = try PageServer(
            regions: regions,
            table: table,
            releasesMemory: settings.releasesMemory,
            polling: settings.polling,
            compression: settings.compression,
            grid: settings.countsPlaces ? announcement.grid : nil
        ) {
            // Events of lanes go to the closure that `attach` receives.
            if case .notReleased(let reason) = $0 { events.add(.notReleased(reason: reason)) }
        }
    }

    /// The closure that receives the events of a link's lanes.
    func lanesOf(_ link: LinkNumber) -> @Sendable (PageServer.Event) -> Void {
        { [events] event in
            switch event {
            case .everyPageSent: events.add(.link(link, .everyPageSent))
            case .laneLost(let lane, let reason): events.add(.link(link, .laneLost(lane, reason: reason)))
            case .memoryLost(let reason): events.add(.link(link, .memoryLost(reason: reason)))
            case .notReleased(let reason): events.add(.notReleased(reason: reason))
            }
        }
    }

    /// `migrate`: begins the migration, which continues by itself until the destination is ready.
    func begin() throws(CommandRefused) {
        switch machine.migrate() {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .connect(let link):
            timeline.note(.begin)
            note()
            events.deliver(on: threads.session) { [self] event in assumeIsolated { $0.handle(event) } }
            perform([.connect(link)])
        }
    }

    /// Waits until something has happened.
    func nextChange() async {
        await withCheckedContinuation { waiting.changes.add($0) }
    }

    /// Handles an event; nil stands for the end.
    private func handle(_ event: Event?) {
        if let event {
            take(event)
            hurry()
            states.settle(isStarting: !machine.isStartedThere)
        } else {
            states.release()
        }
        // Every waiting caller checks its condition again.
        waiting.changes.resume()
    }

    private func take(_ event: Event) {
        switch event {
        case .link(let link, let event):
            if link == machine.link { take(event, of: link) }
        case .redialed(let attempt, let socket):
            if attempt === redialing.attempt { redialed(socket) }
        case .redialGivenUp(let attempt, let reason):
            if attempt === redialing.attempt { giveUpRedial(reason) }
        case .searchOver(let number):
            guard number == redialing.search?.number else { break }
            redialing.search?.isOver = true
            redialing.attempt?.end()
        case .notReleased(let reason): logger.warning("\(reason)")
        case .prepared: perform(machine.prepared())
        case .stopBegun(let time): timeline.note(.stopAsked, at: time)
        case .stopped:
            timeline.note(.stopped)
            if !settings.isPaused {
                course.hasStopped = true
                if let last = workload.activity.lastOperation { timeline.note(.lastOperation, at: last) }
                sink.send(.stop)
            }
            perform(machine.stopped())
        case .stopFailed(let reason): perform(machine.stopFailed(reason: reason))
        case .saved(let saved):
            timeline.note(.saved)
            deviceStates.saved = saved
            perform(machine.saved(ping: UInt64.random(in: 1...UInt64.max)))
        case .saveFailed(let error):
            perform(machine.saveFailed(device: error.device, reason: error.reason))
        case .locksReleased: perform(machine.released(fresh: freshGrant()))
        case .releaseFailed(let error): perform(machine.releaseFailed(reason: "\(error)"))
        case .seized(.taken(let epoch)):
            lease.epoch = epoch
            perform(machine.leaseTaken())
        case .seized(.refused(let reason)):
            logger.warning("cannot take the workload back: \(reason)")
            perform(machine.leaseRefused())
        case .seized(.unreachable(let reason)):
            perform(machine.leaseUnreachable(reason: reason))
            askLeaseLater()
        case .leaseDue: askLease()
        case .regained(.regained(let epoch)):
            lease.epoch = epoch
            perform(machine.leaseRegained(fresh: freshGrant()))
        case .regained(.superseded(let record)): leaseSuperseded(by: record)
        // The agent is exiting and has released the lease.
        case .regained(.stopped): break
        case .cancelOverdue(let number):
            if number == waiting.cancels.rounds, !waiting.cancels.isEmpty { perform(machine.cancelOverdue()) }
        case .goneOverdue(let number): goneWords.overdue = max(goneWords.overdue, number)
        case .wordOverdue: giveUpWord()
        case .eventsDue: states.release()
        case .resumed:
            if course.hasStopped { timeline.note(.takenBack) }
            let outcome =
                settings.isPaused
                ? "is paused here, as before" : course.hasStopped ? "runs here again" : "continues to run here"
            logger.notice("the workload \(outcome)")
            waiting.resumes.resume()
            let actions = machine.resumed()
            // As in QEMU, the event for the state precedes RESUME.
            note()
            if course.hasStopped { sink.send(.resume) }
            perform(actions)
        case .resumeFailed(let reason, let isFinal):
            perform(machine.resumeFailed(reason: reason, isFinal: isFinal))
            waiting.resumes.refuse(machine.failureReason ?? reason)
            if let end = course.end, !end.isTold {
                // Until this failure the workload might have been running at the destination.
                course.end?.isTold = true
                logger.error("the workload has ended: \(end.reason)")
                sink.sendWorkloadEnd()
            }
        }
    }

    private func take(_ event: LinkEvent, of link: LinkNumber) {
        switch event {
        case .connected(let socket): connected(socket, on: link)
        case .connectFailed(let reason), .failed(let reason): endLink(reason)
        case .lanesJoined(let lanes): join(lanes, of: link)
        case .control(.message(let message, _)): receive(message, on: link)
        case .control(.broken(let reason)): lose(reason)
        case .control(.failed(let reason)): endLink(reason)
        case .control(.silent(let reason)):
            redialing.silence = reason
            lose(reason)
        case .everyPageSent: perform(machine.allPagesSent())
        case .laneLost(let lane, let reason): self.link?.control.laneLost(lane, reason: reason)
        case .memoryLost(let reason): loseMemory(reason)
        case .pushDue: push()
        case .resent(let lost, let lanes): serve(lanes, of: link, lost: lost)
        case .held: redialing.search = nil
        }
    }

    /// Gives up a link that broke.
    func lose(_ reason: String) {
        hangUpAfterLoss(reason)
        perform(machine.linkLost(reason: reason))
    }

    /// Gives up a link that could not be made, or that either side ends for a reason of its own.
    ///
    /// - Parameter reason: a sentence that the peer, the log and clients receive as it is.
    func endLink(_ reason: String) {
        hangUpAfterLoss(reason)
        perform(machine.linkEnded(reason: reason))
    }

    private func hangUpAfterLoss(_ reason: String) {
        if reason != redialing.silence { redialing.silence = nil }
        if machine.state == .postcopyActive, link != nil { logger.warning("no link to \(destination): \(reason)") }
        hangUp(reason: reason)
    }

    /// Ends the link, since memory of the workload can no longer be read.
    private func loseMemory(_ reason: String) {
        // Another link would break for the same reason. The first one may still tell whether the workload has started
        // at the destination.
        redialing.holdsStill = machine.isStartedThere || redialing.hasLostMemory
        redialing.hasLostMemory = true
        redialing.silence = nil
        let failure = SwitchoverFailure.memoryLost(reason: reason)
        logger.error("\(failure); if it can be read again, run recover")
        hangUp(reason: failure.description)
        perform(machine.memoryLost(reason: reason))
    }

    /// Records the machine's state, and acts on a pause or on the end of the migration.
    func note() {
        let hadBegun = states.states.contains(.active)
        states.note(machine.state)
        // The push is the only pass over the memory.
        if machine.state == .active, !hadBegun { sink.sendPass(1) }
        if machine.state == .postcopyPaused, link == nil { redialByItself() }
        switch machine.state {
        case .failed, .completed, .cancelled:
            if timeline[.end] == nil {
                timeline.note(.end)
                if machine.state == .completed {
                    let total = snapshot().totalMicroseconds.asTime
                    logger.notice("the migration to \(destination) has completed after \(total): all memory is there")
                }
                if let reason = machine.failureReason {
                    logger.log(
                        level: machine.state == .cancelled ? .notice : .error,
                        machine.state == .cancelled ? "\(reason)" : "the migration failed: \(reason)",
                        // A later migration that fails for the same reason is told too.
                        metadata: ["lasting": "\(migration)"]
                    )
                }
            }
            // An attempt to take the lease back must still report its outcome.
            if machine.isOver, !machine.isRegainingLease {
                redialing.reset()
                events.finish()
            }
        case .none, .setup, .active, .preSwitchover, .device, .postcopyDevice, .postcopyActive, .postcopyPaused,
            .postcopyRecoverSetup, .postcopyRecover, .cancelling:
            break
        }
    }

    func freshGrant() -> RunGrant {
        RunGrant(token: .random(), epoch: lease.epoch)
    }

    /// Ends the control connection and the lanes, and sends the peer the reason.
    ///
    /// - Parameter reason: nil sends none.
    func hangUp(reason: String?) {
        // The reason is sent first, since the end of the lanes would not tell it.
        let control = link?.control
        if link != nil, destinationPath.passed.last?.state == .postcopyActive { destinationPath.note(.postcopyPaused) }
        link = nil
        if let reason { control?.send(.failure(reason: reason)) }
        pageServer.hangUp()
        deviceStates.ahead.giveUp()
        control?.close()
    }
}

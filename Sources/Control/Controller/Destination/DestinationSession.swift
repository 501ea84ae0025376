import Connections
import Guest
import Identity
import LinuxSystem
import Logging
import PageFetcher
import PageProtocol
import QMP
import RunLease
import Switchover
import Telemetry

/// Drives a ``DestinationMachine`` through one migration: reports events to the machine, and carries out the machine's
/// actions.
actor DestinationSession {
    /// An event from outside the session, handled in the order of arrival.
    enum Event: Sendable {
        case arrived(LaneAcceptor.Arrival)
        case link(LinkNumber, LinkEvent)
        case memory(Handover<WaitingMemory>)
        case prepared(any Workload)
        case prepareFailed(reason: String)
        case fetcher(PageFetcher.Event)
        /// The page fetcher has stopped, and the memory is no longer registered with a userfaultfd.
        case memoryGivenBack
        case loaded(Handover<DevicesLoaded>)
        case loadFailed(DeviceError)
        case acquired
        case acquireFailed(reason: String)
        case started
        /// The start is complete, except that the workload stays paused.
        case arrivedPaused
        case startEnded(reason: String)
        case startFailed(reason: String)
        case undone
        case undoFailed(DeviceError)
        case undoDue
        case committed(WorkloadLease.Taking)
        case leaseReturned
        /// The source has not reconnected after this link within the recovery time.
        case sourceGivenUp(LinkNumber)
        /// The wait for the lease's store has timed out.
        case endOverdue
        /// The time of a wait of the agent's exit is over; the number tells a repeated wait from the earlier ones.
        case exitOverdue(ExitWait, Int)
        /// The time is over for which a new source waits until this earlier link ends.
        case openingOverdue(LinkNumber)
        case workloadEnded(reason: String)
        /// The time is over for which events for clients are held back.
        case eventsDue
    }

    /// An event of one control connection; ignored unless that connection is the current one.
    enum LinkEvent: Sendable {
        case control(ControlLink.Event)
        case probed(floor: Report.Floor, Lanes)
        /// The pages that had arrived when the threads of the former lanes ended, as a bit for each page of each
        /// region.
        case received([[UInt8]])
        case stepOverdue(Step)
        case laneLost(Lane, reason: String)
        case placementFailed(reason: String)
        /// This side has found a reason to end the link.
        case failed(reason: String)
    }

    /// The moments that the report is computed from.
    enum Moment: Hashable {
        case begin, loadBegun, loaded, runReceived, started, resident, end
    }

    /// The settings of a destination's migrations.
    struct Settings: Sendable {
        /// The instance id of this agent.
        let instance: InstanceID
        /// Whether the agent waits for the next source after a failed migration.
        var waitsOn = false
        /// Whether another attempt to migrate may make this agent listen elsewhere.
        var isProvisional = false
        var startsStopped: Bool
        var prefetch: Prefetch
        var faultThreads: Int
        var polling: Duration
        /// Whether pages are counted by their place, for a live page.
        var countsPlaces = false
        var lease: WorkloadLease?
        var peerTimeout: Duration
        var recoveryTime: Duration
        /// The clock that time limits go by.
        var clock: any Clock<Duration>
    }

    let landing: any Landing
    let settings: Settings
    /// The log, whose lines name the migration once a source was accepted.
    var logger: Logger
    let events: EventQueue<Event>
    /// The earlier migrations of this agent that are over here, and whose sources may still reconnect.
    let formers: FormerMigrations
    let sink: EventSink
    let observer: Observer
    let threads: SessionThreads

    var machine: DestinationMachine
    var states: StateLog
    /// The states that the source has told, or that its messages imply.
    var sourcePath = StatePath()
    var timeline = Timeline<Moment>()
    var listener: Listener
    var link: Link?
    var links = Links()
    var peer: Hello?
    /// What has arrived; nil before a source was accepted.
    var arrival: ArrivingWorkload?
    var waiting = Waiting()
    var course = Course()
    var standing = Standing.serves
    /// Whether `migrate_cancel` is being handled.
    var isCancelled = false
    /// The end of the migration here; nil before.
    var end: End?
    /// The exit of the agent; nil before it was asked for.
    var exit: Exit?

    /// Upper bound on a start, or on undoing one, while an agent exits that does not wait for its workload.
    ///
    /// Also how long the end of a migration waits for the lease's store.
    static let startTime = Duration.seconds(60)

    nonisolated var unownedExecutor: UnownedSerialExecutor { threads.session.executor }

    /// Makes a session that waits for a source.
    ///
    /// - Parameters:
    ///   - landing: prepares memory for the arriving workload.
    ///   - makeAcceptor: makes the listener.
    ///   - settings: how the destination behaves.
    ///   - formers: receives connections for an earlier migration of this agent.
    ///   - logger: receives the session's log.
    ///   - sink: receives each state of the migration, and the workload's start.
    ///   - observer: receives the acceptance of a source, and the end of the migration.
    /// - Throws: what `makeAcceptor` throws.
    init(
        landing: any Landing,
        acceptor makeAcceptor: MakeAcceptor,
        settings: Settings,
        formers: FormerMigrations,
        logger: Logger,
        sink: EventSink,
        observer: Observer
    ) throws {
        self.landing = landing
        self.logger = logger
        self.observer = observer
        self.settings = settings
        machine = DestinationMachine(startsStopped: settings.startsStopped, usesLease: settings.lease != nil)
        self.sink = sink
        threads = try SessionThreads(logger: logger)
        let events = EventQueue<Event>(clock: settings.clock)
        self.events = events
        states = StateLog(role: .destination, sink: sink) { events.add(.eventsDue, after: StateLog.holdTime) }
        self.formers = formers
        listener = Listener(acceptor: try makeAcceptor { formers.route($0, otherwise: events) })
    }

    /// `migrate-incoming`: begins to wait for a source.
    func begin() throws(CommandRefused) {
        switch machine.migrateIncoming() {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .listen:
            note()
            events.deliver(on: threads.session) { [self] event in assumeIsolated { $0.handle(event) } }
        }
    }

    /// Whether the workload here or its source still needs this agent.
    var isNeeded: Bool { machine.isNeeded }

    /// Whether the workload was paused at its source and has arrived paused, so that its arrival has not run it.
    var hasArrivedPaused: Bool { arrival?.isPaused ?? false }

    /// The workload that has arrived; nil before, and once it was freed.
    var workload: (any Workload)? { arrival?.workload }

    /// Handles an event; nil stands for the end.
    private func handle(_ event: Event?) {
        guard let event else {
            states.release()
            return waiting.changes.resume()
        }
        take(event)
        states.settle()
        settleOpening()
        reportEnd()
        endIfOver()
        tellChange()
    }

    /// Lets every waiting caller check its condition again.
    func tellChange() {
        limitExit()
        waiting.changes.resume()
    }

    /// Waits until something has happened.
    func nextChange() async {
        await withCheckedContinuation { waiting.changes.add($0) }
    }

    /// Waits until the session is retired, its source needs no answer, and the lease's store has answered.
    func ended() async {
        while !isOver { await nextChange() }
    }

    private func take(_ event: Event) {
        switch event {
        case .arrived(let arrival):
            switch arrival.opening {
            case .hello(let hello): greet(arrival, hello)
            case .join(let join): self.join(arrival.socket, join)
            }
        case .link(let number, let event):
            if let link, number == link.number { take(event, of: link) }
        case .memory(let memory): takeMemory(memory)
        case .prepared(let workload):
            arrival?.preparation = .prepared(workload)
            settlePreparation()
        case .prepareFailed(let reason): endPreparation(refusing: reason)
        case .fetcher(let event): take(event)
        case .memoryGivenBack: if !isRetired { collapseMemory() }
        case .loaded(let proof):
            timeline.note(.loaded)
            let faults = LatencyRecorder.sum(of: arrival?.fetcher?.service ?? [])
            arrival?.loadFaults = faults
            arrival?.loaded = proof
            perform(machine.devicesLoaded())
        case .loadFailed(let error):
            perform(machine.deviceLoadFailed(device: error.device, reason: error.reason))
        case .acquired: perform(machine.acquired())
        case .acquireFailed(let reason): perform(machine.acquireFailed(reason: reason))
        case .started:
            timeline.note(.started)
            logger.notice("the workload runs here")
            let actions = machine.started()
            // As in QEMU, the event for the state precedes RESUME.
            note()
            sink.send(.resume)
            perform(actions)
            if let reason = course.endReason { tellEnd(reason) }
        case .arrivedPaused:
            // A `cont` that arrived meanwhile is waiting for the workload to run.
            guard waiting.conts.isEmpty else { return startWorkload() }
            arrival?.isPaused = true
            timeline.note(.started)
            logger.notice("the workload has arrived, paused as it was at its source; run cont to resume it")
            perform(machine.started())
            if let reason = course.endReason { tellEnd(reason) }
        case .startEnded(let reason):
            timeline.note(.started)
            course.endReason = reason
            course.hasEndedInStart = true
            perform(machine.startEnded(reason: reason))
            tellEnd(reason)
        case .startFailed(let reason): perform(machine.startFailed(reason: reason))
        case .undone: perform(machine.undone())
        case .undoFailed(let error):
            logger.error("cannot undo the start, retrying; the source gets no answer until that works: \(error)")
            events.add(.undoDue, after: .seconds(1))
        case .undoDue: undo()
        case .committed(.taken): perform(machine.leaseCommitted())
        case .committed(.refused(let reason)), .committed(.unreachable(let reason)):
            perform(machine.leaseRefused(reason: reason))
        case .leaseReturned: perform(machine.leaseReturned())
        case .workloadEnded(let reason):
            guard course.endReason == nil else { return }
            course.endReason = reason
            machine.workloadEnded(reason: reason)
            if snapshot().hasStarted { tellEnd(reason) } else { prohibitStart(reason) }
        case .exitOverdue(let wait, let number):
            // Only the timer of a word that is due now counts.
            if wait != .word || number == exit?.waits { machine.exitOverdue(wait) }
        case .openingOverdue(let number): settleOpening(after: number)
        case .eventsDue: states.release()
        case .endOverdue: reportEnd(isOverdue: true)
        case .sourceGivenUp(let number):
            links.isGivingSourceUp = false
            guard number == links.newest, link == nil else { return }
            machine.sourceGivenUp()
            perform([])
        }
    }

    private func take(_ event: LinkEvent, of link: Link) {
        switch event {
        case .control(.message(let message, _)): receive(message, on: link)
        case .control(.broken(let reason)), .control(.silent(let reason)): lose(reason)
        case .control(.failed(let reason)), .failed(let reason): endLink(reason)
        case .probed(let floor, let lanes):
            arrival?.floor = floor
            attach(lanes)
        case .received(let received):
            for part in ReceivedMap.parts(of: received) { link.control.send(.received(part)) }
            link.control.allowSilence()
            self.link?.isWelcomed = true
            // If the source made several connections at once, the newest one counts.
            noteReconnect()
            attachAgain()
        case .stepOverdue(let step): loseIfOverdue(step, of: link)
        case .laneLost(let lane, let reason):
            // A source that takes its workload back closes its lanes but still has a last message, so it gets more
            // time.
            let isRefused = machine.owesPromise && machine.failureReason != nil
            let time = isRefused ? settings.peerTimeout : ControlLink.lastWordTime
            link.control.laneLost(lane, reason: reason, wait: time)
        case .placementFailed(let reason): memoryFailed(reason)
        }
    }

    /// The closure that receives the events of a link's lanes.
    func lanesOf(_ link: LinkNumber) -> @Sendable (PageFetcher.LaneEvent) -> Void {
        { [events] event in
            switch event {
            case .everyRunFetched: break  // A migration fetches no runs.
            case .lost(let lane, let reason): events.add(.link(link, .laneLost(lane, reason: reason)))
            case .placementFailed(let reason): events.add(.link(link, .placementFailed(reason: reason)))
            }
        }
    }

    /// Prohibits any start here from now on.
    private func prohibitStart(_ reason: String) {
        logger.error("the workload can no longer start here: \(reason)")
        perform(machine.prohibitStart(reason: reason))
    }

    private func tellEnd(_ reason: String) {
        logger.error("the workload has ended: \(reason)")
        sink.sendWorkloadEnd()
        // The missing pages are not needed any more.
        if machine.state != .completed, let lossReason { endLink(lossReason) }
    }

    /// The reason that the source receives if the workload needs no more pages before the last one has arrived: the
    /// workload has ended, or its process has lost memory.
    var lossReason: String? {
        course.endReason.map { "the workload has ended at the destination: \($0)" } ?? course.memoryLoss
    }

    private func take(_ event: PageFetcher.Event) {
        switch event {
        case .everyPageResident:
            timeline.note(.resident)
            perform(machine.allPagesResident())
        case .faultUnanswered(let reason):
            logger.error("\(reason); retrying every second")
        case .forked:
            let name = arrival?.workload?.name ?? "the workload"
            let advice = "use vfork or posix_spawn, or fork after COMPLETE"
            logger.warning("\(name) has forked while pages are missing, for which a child waits for ever; \(advice)")
        case .memoryLost(let reason):
            course.memoryLoss = reason
            logger.error("\(reason); threads that read missing pages wait for ever, so end the process")
            memoryFailed(reason)
        case .failed(let reason): memoryFailed(reason)
        }
    }

    /// Handles the failure to place pages.
    private func memoryFailed(_ reason: String) {
        // The link must stand while the source still has to hear that nothing starts here.
        guard machine.owesPromise else { return endLink(reason) }
        prohibitStart("\(reason); migrate again once that is fixed")
    }

    /// Gives up a link that broke.
    func lose(_ reason: String) {
        drop(reason) { machine.linkLost(reason: reason) }
    }

    /// Gives up a link that either side ends for a reason of its own.
    ///
    /// - Parameter reason: a sentence that the peer, the log and clients receive as it is.
    func endLink(_ reason: String) {
        drop(reason) { machine.linkEnded(reason: reason) }
    }

    /// Records that the source has reconnected.
    func noteReconnect() {
        logger.notice("the source has reconnected")
        sink.tally.noteReconnect()
        sourcePath.note(.postcopyActive)
    }

    private func drop(_ reason: String, telling tell: () -> [DestinationAction]) {
        let peer = link?.control.peer
        if peer != nil, sourcePath.passed.last?.state == .postcopyActive { sourcePath.note(.postcopyPaused) }
        if peer != nil { links.lastLoss = reason }
        hangUp(reason: reason)
        perform(tell())
        // The end of the migration is logged with its own reason.
        if let peer, end == nil { logger.warning("no link to the source at \(peer): \(reason)") }
        settlePreparation()
    }

    /// Limits the wait for a source that was promised that nothing starts here, and has not confirmed that with BYE.
    func giveSourceUpLater() {
        guard machine.awaitsBye, link == nil, !links.isGivingSourceUp else { return }
        links.isGivingSourceUp = true
        // At least 1 s, since the timer restarts as long as the lease's store has not answered.
        events.add(.sourceGivenUp(links.newest), after: max(settings.recoveryTime, .seconds(1)))
    }

    /// Records the machine's state, and acts on the end of the migration.
    func note() {
        states.note(machine.state)
        switch machine.state {
        case .completed, .failed, .cancelled: break
        // The start was refused here, and the source has its workload back.
        case .postcopyDevice where machine.hasGivenUp: break
        case .none, .setup, .active, .preSwitchover, .device, .postcopyDevice, .postcopyActive, .postcopyPaused,
            .postcopyRecoverSetup, .postcopyRecover, .cancelling:
            return
        }
        guard end == nil else { return }
        end = End()
        timeline.note(.end)
        let failure = machine.state == .completed ? nil : machine.failureReason ?? "the migration failed"
        if failure == nil {
            let total = snapshot().totalMicroseconds.asTime
            logger.notice("the migration has completed after \(total): all memory is here")
        }
        arrival?.workload?.settle(failure == nil ? .complete : .abandoned)
        let canTakeNext =
            failure != nil && exit == nil && !isRetired && machine.startedToken == nil
            && (arrival?.isPongSent != true || landing.takesAnother)
        let waitsOn = canTakeNext && (settings.waitsOn || isCancelled)
        if waitsOn {
            logger.warning(
                "waiting for the next source at \(listener.acceptor.address); this migration ended: \(failure ?? "")"
            )
            if machine.isRemembered, let peer { formers.add(peer.migration, events) }
            listener.isHandedOver = observer.onWaitOn(self, listener.acceptor)
        }
        // An agent that is already exiting reports its own reason, unless a workload that has run here is lost.
        let isTold = machine.startedToken != nil || exit == nil && !waitsOn
        end?.unreported = .some(isTold ? failure : nil)
        if machine.owesLease { events.add(.endOverdue, after: DestinationSession.startTime) }
        reportEnd()
    }

    /// Reports the end of the migration to the observer, once the lease's store has answered; the agent may then exit.
    ///
    /// - Parameter isOverdue: whether to report without the store's answer.
    func reportEnd(isOverdue: Bool = false) {
        guard let told = end?.unreported, !machine.owesLease || isOverdue else { return }
        end?.unreported = nil
        // The messages that were queued before must be sent first.
        threads.work.run("end") { [observer, hangUps = threads.hangUps, hasStarted = machine.startedToken != nil] in
            hangUps.threads.join()
            observer.onEnd(told, hasStarted)
        }
    }

    /// Ends the control connection and the lanes, and sends the peer the reason.
    ///
    /// - Parameter reason: nil sends none.
    func hangUp(reason: String?) {
        // The reason is sent first, since the end of the lanes would not tell it.
        let control = link?.control
        if let nonce = link?.nonce { listener.acceptor.noteEnd(ofLinkWith: nonce) }
        link = nil
        if let reason { control?.send(.failure(reason: reason)) }
        arrival?.loseLanes()
        control?.close()
        // No page is missing, so the memory needs no userfaultfd any more.
        if machine.state == .completed { stopFetcher() }
    }

    /// Stops the page fetcher after all pages have arrived.
    func stopFetcher() {
        guard case .served(let fetcher, isStopped: false)? = arrival?.memory, let workload = arrival?.workload else {
            return
        }
        arrival?.memory = .served(fetcher, isStopped: true)
        threads.partings.run("stop") { [events] in
            fetcher.stop()
            workload.memoryIsWhole()
            events.add(.memoryGivenBack)
        }
    }

    /// Collapses arrived memory of this process into transparent huge pages, which had to wait for the last page.
    private func collapseMemory() {
        guard let arrival, arrival.collapsing == nil,
            let memory = arrival.workload?.sourceMemory?.compactMap(\.mapped), !memory.isEmpty,
            TransparentHugePages.areEnabled
        else { return }
        do throws(SystemError) {
            self.arrival?.collapsing = try TransparentHugePages(for: memory) { [logger] in logger.info("\($0)") }
        } catch {
            logger.info("\(error)")
        }
    }
}

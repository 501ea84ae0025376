import Connections
import DestinationAgent
import Guest
import LinuxSystem
import Logging
import PageProtocol
import QMP
import Switchover
import Telemetry

/// Drives the destination's machine through one migration: turns what happens into its events, and its actions into
/// deeds.
actor DestinationSession {
    /// What happens outside of the session, in the order it happened.
    enum Event: Sendable {
        case arrived(LaneAcceptor.Arrival)
        case link(LinkNumber, LinkEvent)
        case memory(Handover<WaitingMemory>)
        case prepared(any Workload)
        case prepareFailed(reason: String)
        case agent(DestinationAgent.Event)
        /// The agent places no page any more, and the memory is the kernel's again.
        case memoryGivenBack
        case loaded(Handover<DevicesLoaded>)
        case loadFailed(DeviceError)
        case acquired
        case acquireFailed(reason: String)
        case started
        case startEnded(reason: String)
        case startFailed(reason: String)
        case undone
        case undoFailed(DeviceError)
        case undoDue
        case committed(WorkloadLease.Taking)
        case leaseReturned
        /// The source has not come again since this link, for as long as it is waited for.
        case sourceGivenUp(LinkNumber)
        /// The store has been waited for long enough.
        case endOverdue
        case byeGivenUp
        case workloadEnded(reason: String)
    }

    /// What happens on one control connection. An event of any but the one in use counts no more.
    enum LinkEvent: Sendable {
        case control(ControlLane.Event)
        case probed(floor: Report.Floor, Lanes)
        /// What the agent has once its lanes of before have ended.
        case received([[UInt8]])
        case stepOverdue(Step)
        /// The link is of no use any more, for a reason that was found here.
        case failed(reason: String)
    }

    /// Moments that the report is made of.
    enum Moment: Hashable {
        case begin, loadBegun, loaded, runReceived, started, resident, end
    }

    /// How a destination behaves in its migrations.
    struct Settings: Sendable {
        /// Whether the next source is waited for when a migration has failed.
        var waitsOn = false
        var startsStopped: Bool
        var prefetch: Prefetch
        var faultThreads: Int
        var lease: WorkloadLease?
        var peerTimeout: Duration
        var recoveryTime: Duration
    }

    /// How long the source may take to say what it is due to say before the agent ends all the same.
    static let leaveTime = Duration.seconds(5)
    /// How long a start, or its undoing, may take before an agent that is not patient ends all the same; and one that is,
    /// if the start cannot be refused any more.
    static let startTime = Duration.seconds(60)

    let landing: any Landing
    let settings: Settings
    let instance: PageProtocol.InstanceID
    let logger: Logger
    let events: AsyncStream<Event>.Continuation
    /// Where it listens: first for any source, after `migrate-recover` for the one that it had.
    var acceptor: LaneAcceptor
    var isListening = true
    /// The migrations of this agent that are over here, and whose sources may still come.
    let formers: FormerMigrations
    let sink: EventSink
    let work = ThreadGroup()
    /// Control connections that are being closed.
    let hangUps = ThreadGroup()
    /// Agents that are being stopped, which their guests can hold up.
    let stops = ThreadGroup()
    private let stream: AsyncStream<Event>
    let observer: Observer

    var machine: DestinationMachine
    var states: StateLog
    var timeline = Timeline<Moment>()
    /// The control connection in use, with a number that tells its events from those of an earlier one.
    var control: (lane: ControlLane, number: LinkNumber)?
    var lastControl = LinkNumber(0)
    /// The control connection whose lanes serve.
    var lanesControl: LinkNumber?
    /// The control connection over which RECEIVED was sent last.
    var welcomedControl: LinkNumber?
    /// The control connection whose REGIONS were taken: memory is prepared for it.
    var acceptedControl: LinkNumber?
    var peer: Hello?
    var nonce = Nonce.zero
    var announcement: GuestAnnouncement?
    var table: RegionTable?
    /// The guest until its lanes are there.
    var prepared: (any Workload)?
    /// Memory and lanes, each until the other is there.
    var waitingMemory: Handover<WaitingMemory>?
    var waitingLanes: Lanes?
    var lanes: Lanes.Arriving
    var agent: DestinationAgent?
    private var isAgentStopped = false
    var workload: (any Workload)?
    /// What gives the workload's memory its transparent huge pages.
    var collapsing: TransparentHugePages?
    var arriving: ArrivingDevices?
    var loaded: Handover<DevicesLoaded>?
    var floor = Report.Floor()
    /// Faults of device loads: nothing else touches the memory before the workload runs.
    var loadFaults: (count: UInt64, nanoseconds: UInt64) = (0, 0)
    var waitingConts: [CheckedContinuation<Void, any Error>] = []
    /// When the workload's first operation after its arrival ended, once that is known.
    var firstOperation: UInt64?
    /// Why the workload has ended by itself.
    var endReason: String?
    /// Why the last link was lost.
    var lastLoss: String?
    /// Why nothing is to start here any more: the agent ends.
    var leaving: String?
    /// Another session takes this one's place.
    var isRetired = false
    /// Another session takes sources in where this one did.
    var hasHandedOver = false
    /// PONG was sent: the source may run the workload here.
    var isPongSent = false
    /// `migrate_cancel` was asked for here.
    var isCancelled = false
    /// The peer has been told why its link ends.
    var isLastWordSent = false
    /// When the control connection in use was made.
    var controlSince = ContinuousClock.now
    /// The time for device state and PING is over then; nil where none are awaited.
    var devicesDeadline: ContinuousClock.Instant?
    /// The link whose lanes have ended: what the others say after the first says nothing.
    private var brokenLanes: LinkNumber?
    /// What had arrived when the memory was let go of.
    var progressAtEnd: DestinationAgent.Progress?
    var (hasEnded, hasDiscarded) = (false, false)
    /// What is to be told of the end: why the migration has failed, or nil; not there where nothing is to be told.
    private var unreportedEnd: String??
    /// A timer runs after which the source is given up.
    private var isGivingSourceUp = false
    private var waitingForEvent: [CheckedContinuation<Void, Never>] = []
    /// The agent is to end, and only BYE is awaited; for long enough.
    private var (awaitsBye, hasWaitedForBye) = (false, false)

    /// Makes a session that takes a source in.
    ///
    /// - Parameters:
    ///   - formers: who is told of connections that are for an earlier migration of this agent.
    ///   - sink: told of every state the migration passes, and of the workload's start.
    init(
        landing: any Landing,
        acceptor makeAcceptor: MakeAcceptor,
        instance: PageProtocol.InstanceID,
        settings: Settings,
        formers: FormerMigrations,
        logger: Logger,
        sink: EventSink,
        observer: Observer
    ) throws {
        self.landing = landing
        self.instance = instance
        self.logger = logger
        self.observer = observer
        self.settings = settings
        lanes = Lanes.Arriving(urgentLanes: settings.faultThreads)
        machine = DestinationMachine(startsStopped: settings.startsStopped, usesLease: settings.lease != nil)
        self.sink = sink
        states = StateLog { sink.send($0) }
        let (stream, events) = AsyncStream.makeStream(of: Event.self)
        self.stream = stream
        self.events = events
        self.formers = formers
        acceptor = try makeAcceptor { formers.route($0, otherwise: events) }
    }

    /// `migrate-incoming`: waits for a source.
    func begin() throws(CommandRefused) {
        switch machine.migrateIncoming() {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .listen:
            note()
            // Who runs is decided ahead of whatever else the process does.
            Task(priority: .high) { await consume() }
        }
    }

    /// Whether the workload here, or its source, needs this agent.
    var isNeeded: Bool { isWorkloadNeeding || machine.awaitsSource || machine.isPreparingStart }

    /// Whether the workload here needs this agent: from the commit point on until the source has said BYE. A workload that
    /// has ended needs nobody; one that has moved on needs the agent only to answer its source.
    private var isWorkloadNeeding: Bool {
        machine.isCommitted && !machine.mayLeave && endReason == nil && (!isRetired || machine.isRemembered)
    }

    /// The agent ends as soon as it is not needed: what may still start here is refused.
    func leaveWhenUnneeded(_ reason: String) async {
        await waitUntilUnneeded()
        await leave(reason, isPatient: true)
        // A start that was under way may have made it the workload's.
        await waitUntilUnneeded()
    }

    /// Waits until the workload does not need the agent; no longer than the source is looked for once all pages are
    /// here.
    private func waitUntilUnneeded() async {
        while isWorkloadNeeding, !hasWaitedForBye {
            if machine.state == .completed, !awaitsBye {
                awaitsBye = true
                Task { [events, settings] in
                    await rest(for: max(settings.recoveryTime, DestinationSession.leaveTime))
                    events.yield(.byeGivenUp)
                }
            }
            await withCheckedContinuation { waitingForEvent.append($0) }
        }
    }

    func consume() async {
        for await event in stream {
            take(event)
            reportEnd()
            endIfOver()
            wakeWaiters()
        }
        wakeWaiters()
    }

    /// Waits until the session, which has retired, owes nobody anything.
    func ended() async {
        while !(isRetired && !machine.isRemembered && !machine.owesLease) {
            await withCheckedContinuation { waitingForEvent.append($0) }
        }
    }

    /// What they wait for may have come.
    private func wakeWaiters() {
        waitingForEvent.forEach { $0.resume() }
        waitingForEvent = []
    }

    private func take(_ event: Event) {
        switch event {
        case .arrived(let arrival):
            switch arrival.opening {
            case .hello(let hello): greet(arrival.socket, hello)
            case .join(let join): self.join(arrival.socket, join)
            }
        case .link(let number, let event):
            if let control, number == control.number { take(event, of: control) }
        case .memory(let memory):
            guard !hasEnded else { return }
            waitingMemory = memory
            if waitingLanes != nil { serveArrivingMemory() }
        case .prepared(let guest):
            prepared = guest
            settlePreparation()
        case .prepareFailed(let reason):
            waitingMemory = nil
            perform(machine.memoryRefused(reason: reason))
        case .agent(let event): take(event)
        case .memoryGivenBack: if !isRetired { collapseMemory() }
        case .loaded(let proof):
            timeline.note(.loaded)
            loadFaults = LatencyRecorder.sum(of: agent?.service ?? [])
            loaded = proof
            perform(machine.devicesLoaded())
        case .loadFailed(let error):
            perform(machine.deviceLoadFailed(device: error.device, reason: error.reason))
        case .acquired: perform(machine.acquired())
        case .acquireFailed(let reason): perform(machine.acquireFailed(reason: reason))
        case .started:
            timeline.note(.started)
            logger.notice("the workload runs here")
            let actions = machine.started()
            // The state comes first, as in QEMU.
            note()
            sink.send("RESUME")
            perform(actions)
            if let endReason { tellEnd(endReason) }
        case .startEnded(let reason):
            timeline.note(.started)
            endReason = reason
            perform(machine.startEnded(reason: reason))
            tellEnd(reason)
        case .startFailed(let reason): perform(machine.startFailed(reason: reason))
        case .undone: perform(machine.undone())
        case .undoFailed(let error):
            logger.error("cannot undo the start, which is tried again; until then the source is told nothing: \(error)")
            Task { [events] in
                await rest(for: .seconds(1))
                events.yield(.undoDue)
            }
        case .undoDue: undo()
        case .committed(.taken): perform(machine.leaseCommitted())
        case .committed(.refused(let reason)), .committed(.unreachable(let reason)):
            perform(machine.leaseRefused(reason: reason))
        case .leaseReturned: perform(machine.leaseReturned())
        case .workloadEnded(let reason):
            guard endReason == nil else { return }
            endReason = reason
            if snapshot().hasStarted { tellEnd(reason) } else { prohibitStart(reason) }
        case .byeGivenUp: hasWaitedForBye = true
        case .endOverdue: reportEnd(isOverdue: true)
        case .sourceGivenUp(let number):
            isGivingSourceUp = false
            guard number == lastControl, control == nil else { return }
            machine.sourceGivenUp()
            perform([])
        }
    }

    private func take(_ event: LinkEvent, of control: (lane: ControlLane, number: LinkNumber)) {
        switch event {
        case .control(.message(let message, _)): receive(message)
        case .control(.lost(let reason)), .control(.silent(let reason)), .failed(let reason): lose(reason)
        case .probed(let floor, let lanes):
            self.floor = floor
            attach(lanes)
        case .received(let received):
            for part in ReceivedMap.parts(of: received) { send(.received(part), on: control.lane) }
            control.lane.allowSilence()
            welcomedControl = control.number
            attachAgain()
        case .stepOverdue(let step): loseIfOverdue(step, of: control.number)
        }
    }

    /// Lets nothing start here any more.
    private func prohibitStart(_ reason: String) {
        logger.error("the workload cannot start here any more: \(reason)")
        perform(machine.prohibitStart(reason: reason))
    }

    private func tellEnd(_ reason: String) {
        logger.error("the workload has ended: \(reason)")
        sink.sendWorkloadEnd()
        // Nobody needs its pages any more.
        if machine.state != .completed { lose(lossReason) }
    }

    /// What the source is told of a workload that has ended before its last page came.
    var lossReason: String { "the workload has ended at the destination: \(endReason ?? "")" }

    private func take(_ event: DestinationAgent.Event) {
        switch event {
        case .everyRunFetched: break  // None was to be fetched.
        case .everyPageResident:
            timeline.note(.resident)
            perform(machine.allPagesResident())
        case .laneLost(let lane, let reason):
            // Lanes of an earlier link, which end late, say nothing of this one; nor do lanes that end because another did.
            guard let control, control.number == lanesControl, brokenLanes != control.number else { return }
            brokenLanes = control.number
            let (number, text) = (control.number, "the \(lane) lane: \(reason)")
            // A peer that hangs up closes its connections in no order: the control connection is given time to say why. A
            // source that takes its workload back needs no lanes, and has a last word to say.
            let isRefused = machine.owesPromise && machine.failureReason != nil
            let time = isRefused ? settings.peerTimeout : ControlLane.lastWordTime
            Task { [events] in
                await rest(for: time)
                events.yield(.link(number, .failed(reason: text)))
            }
        case .faultUnanswered(let reason):
            logger.error("\(reason); it is tried again each second")
        case .failed(let reason):
            // The source is to hear that nothing starts here, for which the link is needed.
            guard machine.owesPromise else { return lose(reason) }
            prohibitStart("\(reason); migrate again when that is mended")
        }
    }

    func lose(_ reason: String) {
        if let control {
            logger.warning("no link to the source at \(control.lane.peer): \(reason)")
            lastLoss = reason
        }
        hangUp(reason: reason)
        perform(machine.linkLost(reason: reason))
        settlePreparation()
    }

    /// A source that was promised the workload, and does not come to hear that again, is not waited for for ever.
    func giveSourceUpLater() {
        guard machine.awaitsBye, control == nil, !isGivingSourceUp else { return }
        isGivingSourceUp = true
        Task { [events, settings, number = lastControl] in
            // A store that has not answered by then is asked about each second.
            await rest(for: max(settings.recoveryTime, .seconds(1)))
            events.yield(.sourceGivenUp(number))
        }
    }

    /// Notes the present state.
    func note() {
        states.note(machine.state)
        switch machine.state {
        case .completed, .failed, .cancelled: break
        // The source has its workload back after a start that was refused here.
        case .postcopyDevice where machine.hasGivenUp: break
        case .none, .setup, .active, .device, .postcopyDevice, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup,
            .postcopyRecover, .cancelling:
            return
        }
        guard !hasEnded else { return }
        hasEnded = true
        timeline.note(.end)
        let failure = machine.state == .completed ? nil : machine.failureReason ?? "the migration failed"
        workload?.settle(failure == nil ? .complete : .abandoned)
        let canTakeNext = failure != nil && leaving == nil && !isRetired && (!isPongSent || landing.takesAnother)
        let waitsOn = canTakeNext && (settings.waitsOn || isCancelled)
        if waitsOn {
            logger.warning("\(acceptor.address) waits for the next source: \(failure ?? "")")
            hasHandedOver = true
            if machine.isRemembered, let peer { formers.add(peer.migration, events) }
            observer.onWaitOn(self, acceptor)
        }
        // An agent that ends anyway does so for that reason.
        unreportedEnd = .some(leaving == nil && !waitsOn ? failure : nil)
        if machine.owesLease {
            Task { [events] in
                await rest(for: DestinationSession.startTime)
                events.yield(.endOverdue)
            }
        }
        reportEnd()
    }

    /// Tells that the migration has ended here, once its store has answered: the agent may end then.
    private func reportEnd(isOverdue: Bool = false) {
        guard let told = unreportedEnd, !machine.owesLease || isOverdue else { return }
        unreportedEnd = nil
        // What was put into the control connection before leaves first.
        start("end") { [observer, work = hangUps] in
            work.join()
            observer.onEnd(told)
        }
    }

    /// Ends all three connections; the peer is told why.
    func hangUp(reason: String?) {
        // The reason leaves first: the lanes' end alone would not tell it.
        if let (lane, _) = control, let reason { send(.failure(reason: reason), on: lane) }
        agent?.hangUp()
        waitingLanes = nil
        // Nothing is missing any more: the memory is the kernel's again.
        if machine.state == .completed { stopAgent() }
        lanes = Lanes.Arriving(urgentLanes: settings.faultThreads)
        guard let (lane, _) = control else { return }
        control = nil
        // A peer that takes nothing more may hold this up for seconds.
        runBlocking("hang-up", in: hangUps) { lane.finish() }
    }

    /// Stops the agent whose pages have all come.
    func stopAgent() {
        guard let agent, let workload, !isAgentStopped else { return }
        isAgentStopped = true
        runBlocking("stop", in: stops) { [events] in
            agent.stop()
            workload.memoryIsWhole()
            events.yield(.memoryGivenBack)
        }
    }

    /// Gives memory of this process that has arrived its transparent huge pages, which it had to be without meanwhile.
    private func collapseMemory() {
        guard collapsing == nil, let memory = workload?.ownMemory, TransparentHugePages.areEnabled else { return }
        do throws(SystemError) {
            collapsing = try TransparentHugePages(for: memory) { [logger] in logger.info("\($0)") }
        } catch {
            logger.info("\(error)")
        }
    }

    func send(_ message: ControlMessage, on control: ControlLane) {
        do throws(ProtocolError) {
            try control.send(message)
        } catch {
            logger.error("cannot send \(message.kind): \(error)")
            lose("\(error)")
        }
    }

    /// Runs blocking work on a thread of its own.
    func start(_ name: String, _ body: @escaping @Sendable () -> Void) {
        runBlocking(name, in: work, body)
    }

    func runBlocking(_ name: String, in group: ThreadGroup, _ body: @escaping @Sendable () -> Void) {
        do throws(SystemError) {
            try group.run(name, body)
        } catch {
            // Without a thread nothing can go on; the work is done here, late rather than never.
            logger.warning("\(error)")
            body()
        }
    }
}

import Connections
import Guest
import LinuxSystem
import Logging
import PageProtocol
import QMP
import SourceAgent
import Switchover
import Telemetry

/// Drives the source's machine through one migration: turns what happens into its events, and its actions into deeds.
actor SourceSession {
    /// What happens outside of the session, in the order it happened.
    enum Event: Sendable {
        case link(LinkNumber, LinkEvent)
        case redialed(Redial, Handover<StreamSocket>)
        case redialGivenUp(Redial, reason: String)
        case notReleased(reason: String)
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
        case resumeFailed(reason: String)
        case cancelOverdue(Int)
    }

    /// What happens on one link. An event of any link but the machine's counts no more.
    enum LinkEvent: Sendable {
        case connected(Handover<StreamSocket>)
        case connectFailed(reason: String)
        case lanesJoined(Lanes)
        case control(ControlLane.Event)
        case laneLost(Lane, reason: String)
        case everyPageSent
        /// The link is of no use any more, for a reason that was found here.
        case failed(reason: String)
        /// A lane or the control connection has ended, and nothing has said why for some time.
        case unexplained(reason: String)
        case pushDue
        /// What the destination lacks is to be sent again; how many pages of that are gone, and the lanes to send it on.
        case resent(lost: Int, Lanes)
        /// The link has served for as long as a peer may be silent.
        case held
    }

    /// Moments that the report is made of.
    enum Moment: Hashable {
        case begin, stopAsked, lastOperation, stopped, saved, loaded, runSent, running, end
    }

    /// How a source behaves in its migrations.
    struct Settings: Sendable {
        var pushes: Bool
        var releasesMemory: Bool
        var refusalPolicy: StartRefusalPolicy
        var lease: WorkloadLease?
        var peerTimeout: Duration
        var recoveryTime: Duration
    }

    /// What is awaited before a link that rejoins serves.
    struct Rejoining: Sendable {
        var received: ReceivedMap
        var lanes: Lanes?
        var isAsked = false
    }

    /// How long a `cancel` waits for the destination before it is answered with what is known.
    private static let cancelTime = Duration.seconds(30)

    /// How long an agent that is told to end looks for a destination which is only to be told that the workload was taken
    /// back.
    private static let leaveTime = Duration.seconds(5)

    let workload: any Workload
    let settings: Settings
    var destination: SocketAddress
    let instance: PageProtocol.InstanceID
    let logger: Logger
    let sink: EventSink
    nonisolated let events: AsyncStream<Event>.Continuation
    let work = ThreadGroup()
    /// Control connections that are being closed.
    let hangUps = ThreadGroup()
    let migration = MigrationID.random()
    let agent: SourceAgent

    var machine: SourceMachine
    /// The epoch of the run lease that the source knows to hold; 0 without one.
    var epoch: UInt64
    /// The epoch from which the migration began.
    let firstEpoch: UInt64
    var states: StateLog
    var timeline = Timeline<Moment>()
    var control: ControlLane?
    var peer: Hello?
    var savedDevices: [DeviceSet.Saved] = []
    var wasTakenBack = false
    var hasLetMemoryGo = false
    var waitingCancels: [CheckedContinuation<Void, any Error>] = []
    /// How often a `cancel` has begun to wait where none did.
    private var waits = 0
    var waitingResumes: [CheckedContinuation<Void, any Error>] = []
    private var waitingForEvent: [CheckedContinuation<Void, Never>] = []
    /// Why the workload's process here has ended by itself.
    private var endReason: String?
    private var isEndTold = false
    /// What the destination has told of its pages over a link that rejoins, and the lanes of that link.
    var rejoining: Rejoining?
    /// The attempt to make a link again that is under way by itself.
    var redial: Redial?
    /// How long such attempts go on, since the last link that has served.
    var search: Redial.Search?
    /// The link whose lanes have ended.
    private var brokenLanes: LinkNumber?
    /// The agent is to end.
    private(set) var isLeaving = false
    /// It is, and the destination is only owed a word: it is not looked for as long as one with a migration.
    private var isHurrying = false
    /// Whether the run lease is being taken back, which may take long: until that has ended, nobody else may be given it.
    var isRegainingLease: Bool { machine.isRegainingLease }
    /// A pause was asked for, or the destination was looked for in vain: only `recover` ends it.
    var holdsStill = false
    private let stream: AsyncStream<Event>

    /// Makes a session for a workload that runs here.
    ///
    /// - Parameters:
    ///   - regions: the workload's memory, in the order of its description.
    ///   - sink: told of every state the migration passes, and of the workload's stop and start.
    init(
        workload: any Workload,
        regions: [MemoryRegion],
        destination: SocketAddress,
        instance: PageProtocol.InstanceID,
        settings: Settings,
        epoch: UInt64,
        logger: Logger,
        sink: EventSink
    ) throws {
        self.workload = workload
        self.destination = destination
        self.instance = instance
        self.settings = settings
        self.epoch = epoch
        firstEpoch = epoch
        machine = SourceMachine(afterStartRefusal: settings.refusalPolicy, usesLease: settings.lease != nil)
        self.logger = logger
        let (stream, events) = AsyncStream.makeStream(of: Event.self)
        self.stream = stream
        self.events = events
        self.sink = sink
        states = StateLog { state in
            sink.send(state)
            // There is one pass over the memory: the push.
            if state == .active { sink.send("MIGRATION_PASS", ["pass": 1]) }
        }
        let table = try RegionTable(GuestAnnouncement(workload.description).regions)
        agent = try SourceAgent(regions: regions, table: table, releasesMemory: settings.releasesMemory) {
            // Events of lanes go to those who attach them.
            if case .notReleased(let reason) = $0 { events.yield(.notReleased(reason: reason)) }
        }
    }

    /// Where the events of a link's lanes go.
    func lanesOf(_ link: LinkNumber) -> @Sendable (SourceAgent.Event) -> Void {
        { [events] event in
            switch event {
            case .everyPageSent: events.yield(.link(link, .everyPageSent))
            case .laneLost(let lane, let reason): events.yield(.link(link, .laneLost(lane, reason: reason)))
            case .notReleased(let reason): events.yield(.notReleased(reason: reason))
            }
        }
    }

    /// `migrate`: begins, and goes on by itself until the destination is ready.
    func begin() throws(CommandRefused) {
        switch machine.migrate() {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .connect(let link):
            timeline.note(.begin)
            note()
            // Who runs is decided ahead of whatever else the process does.
            Task(priority: .high) { await consume() }
            perform([.connect(link)])
        }
    }

    /// `migrate-start-postcopy`: begins the switchover as soon as the destination is ready.
    func startPostcopy() throws(CommandRefused) {
        switch machine.startPostcopy() {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .remember: break
        case .stop: perform([.stop])
        }
    }

    /// `migrate_cancel`: returns when the workload is here.
    ///
    /// - Throws: ``CommandRefused`` with the reason why it is not.
    func cancel() async throws {
        let actions: [SourceAction]
        switch machine.cancel() {
        case .succeeded: return
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .waits(let next): actions = next
        }
        if waitingCancels.isEmpty {
            waits += 1
            Task { [events, waits] in
                await rest(for: SourceSession.cancelTime)
                events.yield(.cancelOverdue(waits))
            }
        }
        try await withCheckedThrowingContinuation { waiting in
            waitingCancels.append(waiting)
            perform(actions)
        }
    }

    /// `migrate` with `resume`: looks for the destination again, there or where it was.
    func recover(at address: SocketAddress?) throws(CommandRefused) {
        switch machine.recover() {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .connect(let link):
            if let address { destination = address }
            redial?.cancel()
            redial = nil
            search = nil
            perform([.connect(link)])
        }
    }

    /// `migrate-pause`: breaks the link, as a network would.
    func pause() throws(CommandRefused) {
        guard machine.state == .postcopyActive, control != nil else {
            throw CommandRefused(reason: "only a migration in postcopy-active can be paused")
        }
        holdsStill = true
        lose("migrate-pause was asked for")
    }

    /// The operator's word that the destination is gone, and whether the workload has run there.
    func destinationIsGone(hasRun: Bool) async throws {
        switch machine.destinationIsGone(hasRun: hasRun) {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .takeBack:
            try await withCheckedThrowingContinuation { waiting in
                waitingResumes.append(waiting)
                perform([.resume])
            }
        case .abandoned: note()
        }
    }

    /// `cont` at a source that stays stopped, as it could not resume.
    func retryResume() async throws {
        switch machine.retryResume() {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .resume:
            try await withCheckedThrowingContinuation { waiting in
                waitingResumes.append(waiting)
                perform([.resume])
            }
        }
    }

    /// Whether the destination, or the workload here, needs this agent for the migration.
    var isNeeded: Bool { !machine.isOver && !(endReason != nil && machine.isHeld && !machine.owesWord) }

    /// Waits until the session needs the agent no more.
    func ended() async {
        while isNeeded { await withCheckedContinuation { waitingForEvent.append($0) } }
    }

    /// Waits until the agent is not needed. A migration that nobody has told to switch over is cancelled.
    func waitUntilUnneeded() async {
        isLeaving = true
        hurry()
        if !machine.isSwitchoverAsked {
            logger.notice("the migration is cancelled: the agent ends, and nobody has asked for the switchover")
            // One that cannot be cancelled any more is waited for.
            try? await cancel()
        }
        while isNeeded { await withCheckedContinuation { waitingForEvent.append($0) } }
        // What was put into the control connection leaves first.
        await hangUps.joined()
    }

    /// How long the destination is looked for, without being asked, when the link has broken.
    var searchTime: Duration {
        isHurrying ? min(settings.recoveryTime, SourceSession.leaveTime) : settings.recoveryTime
    }

    /// Where the agent is to end, a destination that is only owed a word is looked for anew, and not for long.
    private func hurry() {
        guard isLeaving, machine.owesWord, !isHurrying else { return }
        isHurrying = true
        search = nil
        guard redial != nil else { return }
        redial?.cancel()
        redial = nil
        startRedial()
    }

    /// The workload's process here has ended.
    ///
    /// - Returns: whether the workload was here, or could have come back.
    func noteWorkloadEnd(_ reason: String) -> Bool {
        endReason = reason
        isEndTold = machine.isTakeBackPossible
        wakeWaiters()
        return isEndTold
    }

    private func consume() async {
        for await event in stream {
            take(event)
            hurry()
            wakeWaiters()
        }
        wakeWaiters()
    }

    /// What they wait for may have come.
    func wakeWaiters() {
        waitingForEvent.forEach { $0.resume() }
        waitingForEvent = []
    }

    private func take(_ event: Event) {
        switch event {
        case .link(let link, let event):
            if link == machine.link { take(event, of: link) }
        case .redialed(let attempt, let socket):
            if attempt === redial { redialed(socket) }
        case .redialGivenUp(let attempt, let reason):
            if attempt === redial { giveUpRedial(reason) }
        case .notReleased(let reason): logger.warning("\(reason)")
        case .stopBegun(let time): timeline.note(.stopAsked, at: time)
        case .stopped:
            timeline.note(.stopped)
            if let last = workload.activity.lastOperation { timeline.note(.lastOperation, at: last) }
            sink.send("STOP")
            perform(machine.stopped())
        case .stopFailed(let reason): perform(machine.stopFailed(reason: reason))
        case .saved(let saved):
            timeline.note(.saved)
            savedDevices = saved
            perform(machine.saved(ping: UInt64.random(in: 1...UInt64.max)))
        case .saveFailed(let error):
            perform(machine.saveFailed(device: error.device, reason: error.reason))
        case .locksReleased: perform(machine.released(fresh: freshGrant()))
        case .releaseFailed(let error): perform(machine.releaseFailed(reason: "\(error)"))
        case .seized(.taken(let epoch)):
            self.epoch = epoch
            perform(machine.leaseTaken())
        case .seized(.refused(let reason)):
            logger.warning("cannot take the workload back: \(reason)")
            perform(machine.leaseRefused())
        case .seized(.unreachable(let reason)): perform(machine.leaseUnreachable(reason: reason))
        case .regained(.regained(let epoch)):
            self.epoch = epoch
            perform(machine.leaseRegained(fresh: freshGrant()))
        case .regained(.superseded(let record)): leaseSuperseded(by: record)
        // The agent ends.
        case .regained(.stopped): break
        case .cancelOverdue(let number):
            if number == waits, !waitingCancels.isEmpty { perform(machine.cancelOverdue()) }
        case .resumed:
            wasTakenBack = true
            logger.notice("the workload runs on here")
            waitingResumes.forEach { $0.resume() }
            waitingResumes = []
            let actions = machine.resumed()
            // The state comes first, as in QEMU.
            note()
            sink.send("RESUME")
            perform(actions)
        case .resumeFailed(let reason):
            perform(machine.resumeFailed(reason: reason))
            let failure = CommandRefused(reason: machine.failureReason ?? reason)
            waitingResumes.forEach { $0.resume(throwing: failure) }
            waitingResumes = []
            if let endReason, !isEndTold {
                // Until now it might have run elsewhere.
                isEndTold = true
                logger.error("the workload has ended: \(endReason)")
                sink.sendWorkloadEnd()
            }
        }
    }

    private func take(_ event: LinkEvent, of link: LinkNumber) {
        switch event {
        case .connected(let socket): connected(socket, on: link)
        case .connectFailed(let reason), .failed(let reason), .unexplained(let reason): lose(reason)
        case .lanesJoined(let lanes): join(lanes, of: link)
        case .control(.message(let message, _)): receive(message, on: link)
        case .control(.lost(let reason)), .control(.silent(let reason)): lose(reason)
        case .everyPageSent: perform(machine.allPagesSent())
        case .laneLost(let lane, let reason):
            // Lanes that end because another did say nothing.
            guard brokenLanes != link else { return }
            brokenLanes = link
            // A peer that hangs up closes its connections in no order: the control connection is given time to say why.
            Task { [events] in
                await rest(for: ControlLane.lastWordTime)
                events.yield(.link(link, .unexplained(reason: "the \(lane) lane: \(reason)")))
            }
        case .pushDue: push()
        case .resent(let lost, let lanes): serve(lanes, of: link, lost: lost)
        case .held: search = nil
        }
    }

    func lose(_ reason: String) {
        if machine.state == .postcopyActive, control != nil { logger.warning("no link to \(destination): \(reason)") }
        hangUp(reason: reason)
        perform(machine.linkLost(reason: reason))
    }

    /// Notes the present state.
    func note() {
        states.note(machine.state)
        if machine.state == .postcopyPaused, control == nil { redialByItself() }
        switch machine.state {
        case .failed, .completed, .cancelled:
            if timeline[.end] == nil {
                timeline.note(.end)
                if let reason = machine.failureReason {
                    logger.log(
                        level: machine.state == .cancelled ? .notice : .error,
                        machine.state == .cancelled ? "\(reason)" : "the migration failed: \(reason)"
                    )
                }
            }
            // What becomes of the run lease is still to be told.
            if machine.isOver, !machine.isRegainingLease { events.finish() }
        case .none, .setup, .active, .device, .postcopyDevice, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup,
            .postcopyRecover, .cancelling:
            break
        }
    }

    func freshGrant() -> RunGrant {
        RunGrant(token: RunToken(UInt64.random(in: 1...UInt64.max)), epoch: epoch)
    }

    /// Ends all three connections; the peer is told why.
    func hangUp(reason: String?) {
        // The reason leaves first: the lanes' end alone would not tell it.
        if let control, let reason { send(.failure(reason: reason), on: control) }
        agent.hangUp()
        rejoining = nil
        guard let control else { return }
        self.control = nil
        // A peer that takes nothing more may hold this up for seconds.
        start("hang-up", in: hangUps) { control.finish() }
    }

    func send(_ message: ControlMessage, on control: ControlLane) {
        do throws(ProtocolError) {
            try control.send(message)
        } catch {
            // Our own message exceeds the protocol's bounds: the migration cannot go on, the workload can.
            logger.error("cannot send \(message.kind): \(error)")
            fail("\(error)")
        }
    }

    /// Ends the link for a reason that the machine does not see, once what is being done has been done.
    func fail(_ reason: String) {
        if let link = machine.link { events.yield(.link(link, .failed(reason: reason))) }
    }
}

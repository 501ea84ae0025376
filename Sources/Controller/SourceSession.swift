import Guest
import LinuxSystem
import Logging
import PageProtocol
import SourceAgent
import Switchover
import Telemetry

/// Drives the source's machine through one migration: turns what happens into its events, and its actions into deeds.
actor SourceSession {
    /// What happens outside of the session, in the order it happened.
    enum Event: Sendable {
        case connected(Handover<StreamSocket>)
        case connectFailed(reason: String)
        case lanesJoined(urgent: Handover<StreamSocket>, bulk: Handover<StreamSocket>)
        case lanesFailed(reason: String)
        case control(ControlLane.Event)
        case agent(SourceAgent.Event)
        case stopped
        case stopFailed(reason: String)
        case saved([DeviceSet.Saved])
        case saveFailed(DeviceError)
        case locksReleased
        case resumed
        case resumeFailed(reason: String)
    }

    /// Moments that the report is made of.
    enum Moment: Hashable {
        case begin, stopAsked, lastOperation, stopped, saved, loaded, runSent, running, end
    }

    let workload: any Workload
    let destination: SocketAddress
    let instance: PageProtocol.InstanceID
    let logger: Logger
    let pushes: Bool
    let sink: EventSink
    let events: AsyncStream<Event>.Continuation
    let work = ThreadGroup()
    let migration = MigrationID.random()
    let agent: SourceAgent

    var machine = SourceMachine()
    var states: StateLog
    var timeline = Timeline<Moment>()
    var control: ControlLane?
    var peer: Hello?
    var savedDevices: [DeviceSet.Saved] = []
    var wasTakenBack = false
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
        pushes: Bool,
        logger: Logger,
        sink: EventSink
    ) throws {
        self.workload = workload
        self.destination = destination
        self.instance = instance
        self.pushes = pushes
        self.logger = logger
        let (stream, events) = AsyncStream.makeStream(of: Event.self)
        self.stream = stream
        self.events = events
        self.sink = sink
        states = StateLog { sink.send($0) }
        let table = try RegionTable(GuestAnnouncement(workload.description).regions)
        agent = try SourceAgent(regions: regions, table: table) { events.yield(.agent($0)) }
    }

    /// `migrate`: begins, and goes on by itself until the destination is ready.
    func begin() throws(CommandRefused) {
        switch machine.migrate() {
        case .refuse(let reason): throw CommandRefused(reason: reason)
        case .connect:
            timeline.note(.begin)
            note()
            // Who runs is decided ahead of whatever else the process does.
            Task(priority: .high) { await consume() }
            perform([.connect])
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

    private func consume() async {
        for await event in stream { take(event) }
    }

    private func take(_ event: Event) {
        switch event {
        case .connected(let socket): connected(socket)
        case .connectFailed(let reason), .lanesFailed(let reason): lose(reason)
        case .lanesJoined(let urgent, let bulk): join(urgent: urgent, bulk: bulk)
        case .control(.message(let message)): receive(message)
        case .control(.lost(let reason)): lose(reason)
        case .agent(.everyPageSent): perform(machine.allPagesSent())
        case .agent(.laneLost(let lane, let reason)): loseSoon("the \(lane) lane: \(reason)")
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
        case .resumed:
            wasTakenBack = true
            logger.notice("the workload runs on here")
            let actions = machine.resumed()
            // The state comes first, as in QEMU.
            note()
            sink.send("RESUME")
            perform(actions)
        case .resumeFailed(let reason): perform(machine.resumeFailed(reason: reason))
        }
    }

    /// A peer that hangs up closes its connections in no order: the control connection is given time to say why.
    private func loseSoon(_ reason: String) {
        Task { [events] in
            // Nobody cancels this task, so that the sleep does not fail.
            try? await Task.sleep(for: ControlLane.lastWordTime)
            events.yield(.lanesFailed(reason: reason))
        }
    }

    private func lose(_ reason: String) {
        perform(machine.linkLost(reason: reason))
        hangUp(reason: reason)
    }

    /// Notes the present state.
    func note() {
        states.note(machine.state)
        switch machine.state {
        case .failed, .completed, .cancelled:
            if timeline[.end] == nil { timeline.note(.end) }
        case .none, .setup, .active, .device, .postcopyDevice, .postcopyActive, .postcopyPaused, .postcopyRecoverSetup,
            .postcopyRecover, .cancelling:
            break
        }
    }

    func freshGrant() -> RunGrant {
        RunGrant(token: RunToken(UInt64.random(in: 1...UInt64.max)), epoch: 0)
    }

    /// Ends all three connections; the peer is told why.
    func hangUp(reason: String?) {
        // The reason leaves first: the lanes' end alone would not tell it.
        if let control, let reason { send(.failure(reason: reason), on: control) }
        agent.detach()
        guard let control else { return }
        self.control = nil
        // A peer that takes nothing more may hold this up for seconds.
        start("hang-up") { control.finish() }
    }

    func send(_ message: ControlMessage, on control: ControlLane) {
        do throws(ProtocolError) {
            try control.send(message)
        } catch {
            // Our own message exceeds the protocol's bounds: the migration cannot go on, the workload can.
            logger.error("cannot send \(message.kind): \(error)")
            events.yield(.control(.lost(reason: "\(error)")))
        }
    }
}

/// A command that cannot be carried out now.
struct CommandRefused: Error, CustomStringConvertible {
    let reason: String
    var description: String { reason }
}

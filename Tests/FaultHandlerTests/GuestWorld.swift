import PageProtocol

@testable import FaultHandler

/// A guest, its session and its workers, as far as they matter to the guest's fate.
///
/// A worker does one ``Deed`` of an action after the other, and can die before each of them. Time is counted in ticks,
/// of which a world has few.
struct GuestWorld: Hashable {
    static let own = identity(digest: 1, changed: 1)
    static let other = identity(digest: 2, changed: 1)
    /// The own snapshot after the times of its file have changed, from a server that has proved it.
    static let renewed = identity(digest: 1, changed: 2, 1)

    static func identity(digest: UInt8, changed: Int64...) -> SnapshotIdentity {
        guard let digest = ContentDigest([UInt8](repeating: digest, count: 32)) else {
            preconditionFailure("a digest has 32 bytes")
        }
        let times = changed.map { FileProof.Times(modified: 1, changed: $0) }
        return SnapshotIdentity(
            byteCount: 8192,
            proof: .file(FileProof(device: 1, inode: 1, times: times, spread: digest, full: nil))
        )
    }

    static let ticks: UInt64 = 4
    static let giveUp: UInt64 = 2

    /// A wrong driver, which the walk must find out.
    enum Flaw: CaseIterable {
        case recordsNoHold
        case handlesCompletionLast
        case remembersNoSnapshot
    }

    enum Process: Hashable {
        case running
        case killed
        case exited
    }

    /// One step of a driver's action.
    enum Deed: Hashable {
        case remember(SnapshotIdentity)
        case attach(SnapshotIdentity)
        case close
        case detach
        case recordHeld
        case recordContinued(UInt64)
        case recordNotHeld
        case kill
        case giveBack
    }

    enum Link: Hashable {
        case open
        case closed
    }

    enum Step: Hashable, CaseIterable {
        case tick, touch, answer, lastPage, lastDrop
        case linkOwn, linkOther, renew, loseLink, unreachable, turnedAway, refuse
        case check, checkShort, reportComplete, exit, reportExit
        case workerDies, workerStarts, workersFail
        case deed, killFails
    }

    let policy: LostPolicy
    let flaw: Flaw?
    var now: UInt64 = 1
    /// The machine of the living worker; nil if none lives.
    var fate: GuestFate?
    var pending: [Deed] = []
    /// The record in the session's memory.
    var record = GuestFate.Record()
    var process = Process.running
    var link: Link?
    /// The snapshot whose pages the attached lanes bring.
    var lanes: SnapshotIdentity?
    /// Whether the times of the own server's file have changed.
    var isRenewed = false
    /// Since when the worker knows that the guest waits for a page.
    var wanted: UInt64?
    /// Whether every page was placed or dropped.
    var isComplete = false
    /// When the latest worker died.
    var failingSince: UInt64 = 1
    /// Whether a kill has failed, so that the guest is held instead.
    var isUnkillable = false
    /// The snapshot of the first pages.
    var pages: SnapshotIdentity?
    /// What the last step has broken.
    var broken: String?

    init(_ policy: LostPolicy, flaw: Flaw? = nil) {
        self.policy = policy
        self.flaw = flaw
    }

    var isAlive: Bool { process == .running }
    /// The snapshot of the own server.
    var server: SnapshotIdentity { isRenewed ? GuestWorld.renewed : GuestWorld.own }
    var isIdle: Bool { pending.isEmpty }

    func isPossible(_ step: Step) -> Bool {
        guard isIdle || step == .deed || step == .killFails || step == .workerDies else { return false }
        let isServed = fate != nil
        switch step {
        case .tick: return now < GuestWorld.ticks
        case .touch: return isServed && process == .running && !isComplete && wanted == nil
        case .answer: return lanes != nil && wanted != nil
        case .lastPage: return lanes != nil && isAlive && !isComplete
        case .lastDrop: return isServed && process == .running && wanted == nil && !isComplete
        // An attempt to connect that was under way when the last page came still ends.
        case .linkOwn, .linkOther, .unreachable, .turnedAway, .refuse: return isServed && link == nil
        case .renew: return link == .open && lanes == server && !isRenewed
        case .loseLink: return link != nil
        case .check: return isServed
        case .checkShort: return isServed && wanted != nil
        case .reportComplete: return isServed && isComplete
        case .exit: return process == .running
        case .reportExit: return isServed && process == .exited
        case .workerDies: return isServed
        case .workerStarts, .workersFail: return !isServed && isAlive
        case .deed: return !isIdle
        case .killFails: return isServed && pending.first == .kill
        }
    }

    mutating func take(_ step: Step) {
        broken = nil
        switch step {
        case .tick: now += 1
        case .touch: wanted = now
        case .answer: wanted = nil
        case .lastPage, .lastDrop: (isComplete, wanted) = (true, nil)
        case .exit: (process, wanted) = (.exited, nil)
        case .workerDies:
            // A later worker reads the faults of a running guest again.
            (fate, pending, link, lanes, wanted) = (nil, [], nil, nil, nil)
            failingSince = now
        case .workerStarts:
            var machine = GuestFate(onLost: policy, after: GuestWorld.giveUp, from: record)
            let actions = machine.workerStarted(isComplete: isComplete, at: now)
            fate = machine
            begin(actions)
        case .workersFail:
            var machine = GuestFate(onLost: policy, after: GuestWorld.giveUp, from: record)
            begin(machine.workersFailed(since: failingSince, isComplete: isComplete, at: now))
            // The session does not die between two deeds.
            while !isIdle { doNext() }
        case .deed: doNext()
        case .killFails:
            pending.removeFirst()
            isUnkillable = true
            guard var machine = fate else { return }
            let actions = machine.killFailed()
            fate = machine
            begin(actions)
        case .linkOwn, .linkOther, .renew, .loseLink, .unreachable, .turnedAway, .refuse, .check, .checkShort,
            .reportComplete,
            .reportExit:
            report(step)
        }
    }

    /// Reports an event to the worker's machine, and a completion before it.
    private mutating func report(_ step: Step) {
        guard var machine = fate else { return }
        var actions: [GuestAction] = []
        if isComplete, flaw != .handlesCompletionLast || step == .reportComplete {
            actions += machine.completed(at: now)
        }
        switch step {
        case .linkOwn, .linkOther:
            link = .open
            actions += machine.linked(to: step == .linkOwn ? server : GuestWorld.other, at: now)
        case .renew:
            isRenewed = true
            actions += machine.renewed(server)
        case .loseLink:
            link = nil
            actions += machine.linkLost("lost", at: now)
        case .unreachable: actions += machine.linkFailed(.unreachable("away"))
        case .turnedAway: actions += machine.linkFailed(.turnedAway("full"))
        case .refuse: actions += machine.refused("no")
        case .check:
            actions += wanted.map { machine.pageWanted(since: $0, at: now) } ?? machine.noPageWanted(at: now)
        case .checkShort: actions += machine.pageWanted(since: wanted ?? now, isShort: true, at: now)
        case .reportExit: machine.guestEnded()
        case .reportComplete, .tick, .touch, .answer, .lastPage, .lastDrop, .exit, .workerDies, .workerStarts,
            .workersFail, .deed, .killFails:
            break
        }
        fate = machine
        begin(actions)
    }

    private mutating func begin(_ actions: [GuestAction]) {
        if let fate { record.lostSince = fate.record.lostSince }
        for action in actions {
            switch action {
            case .connect, .report: break
            case .attach(let snapshot, _):
                pending += flaw == .remembersNoSnapshot ? [] : [.remember(snapshot)]
                pending.append(.attach(snapshot))
            case .remember(let snapshot): pending.append(.remember(snapshot))
            case .hangUp: pending.append(.close)
            case .detach: pending.append(.detach)
            case .hold: pending += flaw == .recordsNoHold ? [] : [.recordHeld]
            case .continue: pending += [.recordContinued(fate?.record.continued ?? 0), .recordNotHeld]
            case .kill: pending.append(.kill)
            case .giveBack: pending.append(.giveBack)
            }
        }
    }

    private mutating func doNext() {
        let deed = pending.removeFirst()
        let wasKilled = process == .killed
        switch deed {
        case .remember(let snapshot): record.snapshot = snapshot
        case .attach(let snapshot):
            if let pages, pages.matches(snapshot) != .same { broken = "pages of a second snapshot are accepted" }
            pages = pages ?? snapshot
            lanes = snapshot
        case .close: link = link.map { _ in .closed }
        case .detach: lanes = nil
        case .recordHeld:
            if policy == .kill, !isUnkillable { broken = "a guest is held that is to be killed" }
            if isComplete { broken = "a complete guest is held" }
            record.isHeld = true
        case .recordContinued(let time):
            let isServed = lanes != nil && lanes?.matches(pages ?? server) == .same && link == .open && wanted == nil
            if !isComplete, !isServed { broken = "a guest continues that cannot get its pages" }
            record.continued = time
        case .recordNotHeld: record.isHeld = false
        case .kill:
            if policy == .hold { broken = "a guest is killed that is to be held" }
            if isComplete { broken = "a complete guest is killed" }
            if isAlive { (process, wanted) = (.killed, nil) }
        case .giveBack: if !isComplete { broken = "missing pages would read as zeros" }
        }
        if wasKilled { broken = "a killed guest gets \(deed)" }
    }
}

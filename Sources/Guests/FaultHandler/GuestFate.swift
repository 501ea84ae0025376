import PageProtocol

/// The fate of a restored guest as a value: the machine decides, its drivers act.
///
/// A guest gets its pages from a snapshot server. A guest that cannot get them is *lost*, and ``LostPolicy`` says
/// whether a lost guest is killed or *held*: the faults of a held guest wait until its pages can be had again. Nobody
/// stops a held guest's process, which its operator may have stopped. A guest that cannot be killed is held.
///
/// Each worker of the guest has a machine, which starts from the ``Record`` of the worker before. Every event returns
/// the actions for the driver, in order. All instants are nanoseconds of the same monotonic clock. The machine ignores
/// events that no state waits for.
struct GuestFate: Hashable, Sendable {
    enum State: Hashable {
        /// No worker serves the guest. → unlinked, held, complete, killed, ended
        case unserved
        /// The guest runs and no server is connected; the failure is nil until an attempt to connect has failed. →
        /// linked, held, hangingUp, complete, killed, ended
        case unlinked(since: UInt64, failure: LinkFailure?)
        /// The guest runs and a server is connected. → unlinked, hangingUp, returning, complete, killed, ended
        case linked
        /// The guest is held and no server is connected. → returning, hangingUp, complete, ended
        case held(since: UInt64, failure: LinkFailure?)
        /// The guest is held, and the driver closes the link to a server that cannot serve the guest. → held,
        /// returning, complete, ended
        case hangingUp
        /// The guest is held, and a server is connected that has not answered every waiting fault yet. → linked, held,
        /// hangingUp, complete, ended
        case returning
        /// Every page is here: the guest runs, and needs no server any longer. → ended
        case complete
        /// The guest was killed, since it was lost. Final, unless the kill fails. → held, hangingUp, unserved
        case killed
        /// The guest's process has exited. Final.
        case ended
    }

    /// What the next worker must know of a guest.
    struct Record: Hashable, Sendable {
        /// The snapshot that the guest's pages come from; nil before the first link.
        var snapshot: SnapshotIdentity?
        /// Since when no server is connected; nil while one is.
        var lostSince: UInt64?
        /// Whether the guest is held.
        var isHeld = false
        /// When the guest last continued after it was held; 0 if it never was.
        var continued: UInt64 = 0
    }

    /// Why a guest is killed, and its state if that fails.
    private struct Killing: Hashable {
        let loss: GuestLoss
        let otherwise: State
    }

    private(set) var state = State.unserved
    /// What the next worker must know of the guest.
    private(set) var record: Record
    /// Whether a link of this worker has stood.
    private var wasLinked = false
    /// The kill that may fail; nil before a kill.
    private var killing: Killing?
    private let policy: LostPolicy
    /// Nanoseconds without an answer after which a guest that waits for a page is lost.
    private let giveUp: UInt64

    /// Makes the machine of a guest that no worker serves yet.
    ///
    /// - Parameters:
    ///   - policy: what happens to the guest if it is lost.
    ///   - giveUp: nanoseconds without an answer after which a guest that waits for a page is lost.
    ///   - record: what earlier workers have recorded of the guest.
    init(onLost policy: LostPolicy, after giveUp: UInt64, from record: Record = Record()) {
        self.policy = policy
        self.giveUp = giveUp
        self.record = record
    }

    /// A worker starts to serve the guest, which an earlier worker may have held.
    mutating func workerStarted(isComplete: Bool, at now: UInt64) -> [GuestAction] {
        guard state == .unserved else { return [] }
        if isComplete { return finish(at: now) }
        // An earlier worker's time without a server counts too.
        let since = record.lostSince ?? now
        become(record.isHeld ? .held(since: since, failure: nil) : .unlinked(since: since, failure: nil))
        return [.connect]
    }

    /// No worker could serve the guest since an instant.
    mutating func workersFailed(since: UInt64, isComplete: Bool, at now: UInt64) -> [GuestAction] {
        // A guest that has every page needs no worker.
        guard state == .unserved, !record.isHeld, !isComplete, isOver(since, at: now) else { return [] }
        return lose(.unserved, thenHeldAs: .unserved)
    }

    /// A server is connected, which serves a snapshot.
    mutating func linked(to snapshot: SnapshotIdentity, at now: UInt64) -> [GuestAction] {
        switch state {
        case .unlinked, .linked:
            guard isOwn(snapshot) else { return lose(.otherSnapshot, thenHeldAs: .hangingUp) }
            return attach(snapshot, in: .linked, at: now)
        case .held, .hangingUp, .returning:
            guard isOwn(snapshot) else {
                become(.hangingUp)
                return [.hangUp]
            }
            return attach(snapshot, in: .returning, at: now)
        case .complete: return [.hangUp]
        case .unserved, .killed, .ended: return []
        }
    }

    /// The connected server has told a new identity of its snapshot, after the times of its file have changed.
    mutating func renewed(_ snapshot: SnapshotIdentity) -> [GuestAction] {
        switch state {
        case .linked, .returning:
            // The server itself has proved that the snapshot is the same, unless the identities contradict each other.
            guard let own = record.snapshot, own.matches(snapshot) != .other else {
                if state == .linked { return lose(.otherSnapshot, thenHeldAs: .hangingUp) }
                become(.hangingUp)
                return [.hangUp]
            }
            let renewed = own.renewed(by: snapshot)
            record.snapshot = renewed
            return [.remember(renewed)]
        case .unserved, .unlinked, .held, .hangingUp, .complete, .killed, .ended: return []
        }
    }

    /// The link to the server is lost, or was closed.
    mutating func linkLost(_ reason: String, at now: UInt64) -> [GuestAction] {
        switch state {
        case .linked:
            become(.unlinked(since: now, failure: .unreachable(reason)))
            return [.detach, .report(.linkLost(reason))]
        case .hangingUp, .returning:
            become(.held(since: now, failure: .unreachable(reason)))
            return [.detach]
        case .complete: return [.detach]
        case .unserved, .unlinked, .held, .killed, .ended: return []
        }
    }

    /// An attempt to connect has failed.
    mutating func linkFailed(_ failure: LinkFailure) -> [GuestAction] {
        let earlier: LinkFailure?
        switch state {
        case .unlinked(let since, let before):
            earlier = before
            become(.unlinked(since: since, failure: failure))
        case .held(let since, let before):
            earlier = before
            become(.held(since: since, failure: failure))
        case .unserved, .linked, .hangingUp, .returning, .complete, .killed, .ended: return []
        }
        // The loss of a link was reported, and a server that was never reached is reported once. That a server is there
        // and turns the guest away is news in each of these cases.
        let isNews =
            failure.isTurnedAway ? earlier?.isTurnedAway != true : !wasLinked && earlier == nil
        return isNews ? [.report(.unlinked(failure))] : []
    }

    /// The server refuses the guest, or serves another snapshot than the guest's.
    mutating func refused(_ reason: String) -> [GuestAction] {
        switch state {
        case .unlinked(let since, let before):
            return lose(.refused(reason), thenHeldAs: .held(since: since, failure: before))
        case .unserved, .linked, .held, .hangingUp, .returning, .complete, .killed, .ended: return []
        }
    }

    /// The guest waits for a page.
    ///
    /// - Parameters:
    ///   - waiting: since when the page was waited for.
    ///   - isShort: whether this host has no memory for pages. A server is then not to blame, and stays connected.
    ///   - now: the time.
    mutating func pageWanted(since waiting: UInt64, isShort: Bool = false, at now: UInt64) -> [GuestAction] {
        switch state {
        case .unlinked(let since, let failure):
            guard isOverdue(min(since, waiting), at: now) else { return [] }
            return lose(.unlinked(failure), thenHeldAs: .held(since: since, failure: failure))
        case .linked:
            guard isOverdue(waiting, at: now) else { return [] }
            return isShort ? lose(.noMemory, thenHeldAs: .returning) : lose(.unanswered, thenHeldAs: .hangingUp)
        case .unserved, .held, .hangingUp, .returning, .complete, .killed, .ended: return []
        }
    }

    /// The guest waits for no page.
    mutating func noPageWanted(at now: UInt64) -> [GuestAction] {
        switch state {
        case .returning:
            become(.linked)
            return resume(at: now)
        case .unserved, .unlinked, .linked, .held, .hangingUp, .complete, .killed, .ended: return []
        }
    }

    /// Every page of the guest was placed or dropped.
    mutating func completed(at now: UInt64) -> [GuestAction] {
        switch state {
        case .unlinked, .held, .hangingUp: return finish(at: now)
        case .linked, .returning: return finish(at: now) + [.hangUp]
        case .unserved, .complete, .killed, .ended: return []
        }
    }

    /// The guest could not be killed.
    mutating func killFailed() -> [GuestAction] {
        guard state == .killed, let killing else { return [] }
        self.killing = nil
        return hold(killing.loss, as: killing.otherwise)
    }

    /// The guest's process has exited.
    mutating func guestEnded() {
        guard state != .killed else { return }
        state = .ended
    }

    /// Enters a state of a guest that still lacks pages.
    private mutating func become(_ next: State) {
        state = next
        switch next {
        case .unlinked(let since, _), .held(let since, _): record.lostSince = since
        case .linked, .hangingUp, .returning, .complete: record.lostSince = nil
        case .unserved, .killed, .ended: break
        }
    }

    private func isOwn(_ snapshot: SnapshotIdentity) -> Bool { record.snapshot?.matches(snapshot) ?? .same == .same }

    private mutating func attach(_ snapshot: SnapshotIdentity, in next: State, at now: UInt64) -> [GuestAction] {
        let absence = wasLinked ? record.lostSince.map { now - min($0, now) } : nil
        let known = record.snapshot?.renewed(by: snapshot) ?? snapshot
        record.snapshot = known
        wasLinked = true
        become(next)
        return [.attach(known, after: absence)]
    }

    private func isOver(_ since: UInt64, at now: UInt64) -> Bool { now > since && now - since >= giveUp }

    /// Whether the guest has waited for too long; the time in which the guest was held does not count.
    private func isOverdue(_ since: UInt64, at now: UInt64) -> Bool { isOver(max(since, record.continued), at: now) }

    /// Applies the policy to a guest that runs.
    private mutating func lose(_ loss: GuestLoss, thenHeldAs held: State) -> [GuestAction] {
        switch policy {
        case .kill:
            killing = Killing(loss: loss, otherwise: held)
            become(.killed)
            return [.kill(loss)]
        case .hold: return hold(loss, as: held)
        }
    }

    private mutating func hold(_ loss: GuestLoss, as held: State) -> [GuestAction] {
        become(held)
        record.isHeld = true
        return held == .hangingUp ? [.hold(loss), .hangUp] : [.hold(loss)]
    }

    /// Ends the holding of a guest.
    private mutating func resume(at now: UInt64) -> [GuestAction] {
        guard record.isHeld else { return [] }
        record.isHeld = false
        record.continued = now
        return [.continue]
    }

    private mutating func finish(at now: UInt64) -> [GuestAction] {
        become(.complete)
        return [.giveBack] + resume(at: now)
    }
}

extension GuestFate {
    /// Makes the machine of a task's guest from the record of the workers before.
    init(_ task: GuestTask, from record: Record) {
        let giveUp = UInt64(task.settings.giveUpSeconds * 1e9)
        self.init(onLost: task.settings.onLost, after: giveUp, from: record)
    }
}

import PageProtocol
import Testing

@testable import FaultHandler

private let own = GuestWorld.own
private let other = GuestWorld.other
private let giveUp: UInt64 = 60

extension GuestFate {
    /// A guest whose first worker has started at 100.
    fileprivate static func unlinked(_ policy: LostPolicy = .hold) -> GuestFate {
        var fate = GuestFate(onLost: policy, after: giveUp)
        _ = fate.workerStarted(isComplete: false, at: 100)
        return fate
    }

    /// A guest whose server was connected at 110.
    fileprivate static func linked(_ policy: LostPolicy = .hold) -> GuestFate {
        var fate = unlinked(policy)
        _ = fate.linked(to: own, at: 110)
        return fate
    }

    /// A guest that was held at 260, since its server was away from 200 on.
    fileprivate static func held() -> GuestFate {
        var fate = linked()
        _ = fate.linkLost("reset", at: 200)
        _ = fate.pageWanted(since: 150, at: 260)
        return fate
    }

    /// A held guest whose server was connected again at 300.
    fileprivate static func returning() -> GuestFate {
        var fate = held()
        _ = fate.linked(to: own, at: 300)
        return fate
    }
}

@Suite("A guest's machine")
struct GuestFateTests {
    @Test("connects a guest to its server until every page is here, and gives its memory back then")
    func happyPath() {
        var fate = GuestFate(onLost: .hold, after: giveUp)
        #expect(fate.state == .unserved)
        #expect(fate.workerStarted(isComplete: false, at: 100) == [.connect])
        #expect(fate.state == .unlinked(since: 100, failure: nil))
        #expect(fate.linked(to: own, at: 110) == [.attach(own, after: nil)])
        #expect(fate.state == .linked)
        #expect(fate.pageWanted(since: 120, at: 121) == [])
        #expect(fate.noPageWanted(at: 122) == [])
        #expect(fate.completed(at: 130) == [.giveBack, .hangUp])
        #expect(fate.linkLost("closed", at: 131) == [.detach])
        #expect(fate.state == .complete)
        fate.guestEnded()
        #expect(fate.state == .ended)
    }

    @Test("reports the loss of the link, and attaches the link that replaces it")
    func linkReturns() {
        var fate = GuestFate.linked()
        #expect(fate.linkLost("reset", at: 200) == [.detach, .report(.linkLost("reset"))])
        #expect(fate.linkFailed(.unreachable("refused")) == [])
        #expect(fate.state == .unlinked(since: 200, failure: .unreachable("refused")))
        #expect(fate.record.lostSince == 200)
        #expect(fate.linked(to: own, at: 230) == [.attach(own, after: 30)])
        #expect(fate.record == GuestFate.Record(snapshot: own))
    }

    @Test("reports once that a server was never reached")
    func neverReached() {
        var fate = GuestFate.unlinked()
        #expect(fate.linkFailed(.unreachable("refused")) == [.report(.unlinked(.unreachable("refused")))])
        #expect(fate.linkFailed(.unreachable("no route")) == [])
        #expect(fate.pageWanted(since: 100, at: 160) == [.hold(.unlinked(.unreachable("no route")))])
    }

    @Test("reports once that a server is there and turns the guest away, also after the loss of a link")
    func turnedAway() {
        let full = LinkFailure.turnedAway("all connections are in use")
        var fate = GuestFate.unlinked()
        #expect(fate.linkFailed(.unreachable("refused")) == [.report(.unlinked(.unreachable("refused")))])
        #expect(fate.linkFailed(full) == [.report(.unlinked(full))])
        #expect(fate.linkFailed(full) == [])
        #expect(fate.pageWanted(since: 100, at: 160) == [.hold(.unlinked(full))])
        var linked = GuestFate.linked(.kill)
        _ = linked.linkLost("reset", at: 200)
        #expect(linked.linkFailed(full) == [.report(.unlinked(full))])
        #expect(linked.linkFailed(full) == [])
        #expect(linked.pageWanted(since: 220, at: 260) == [.kill(.unlinked(full))])
    }

    @Test("applies the policy when the server is away while a page is wanted", arguments: LostPolicy.allCases)
    func serverAway(policy: LostPolicy) {
        var fate = GuestFate.linked(policy)
        _ = fate.linkLost("reset", at: 200)
        #expect(fate.pageWanted(since: 220, at: 259) == [])
        let loss = GuestLoss.unlinked(.unreachable("reset"))
        switch policy {
        case .hold:
            #expect(fate.pageWanted(since: 220, at: 260) == [.hold(loss)])
            #expect(fate.state == .held(since: 200, failure: .unreachable("reset")) && fate.record.isHeld)
        case .kill:
            #expect(fate.pageWanted(since: 220, at: 260) == [.kill(loss)])
            #expect(fate.state == .killed)
        }
    }

    @Test("does nothing about an absent server while no page is wanted")
    func nothingWanted() {
        var fate = GuestFate.linked(.kill)
        _ = fate.linkLost("reset", at: 200)
        #expect(fate.noPageWanted(at: 100_000) == [])
        #expect(fate.state == .unlinked(since: 200, failure: .unreachable("reset")))
    }

    @Test("counts the wait that began while the server was connected")
    func waitBegunBefore() {
        var fate = GuestFate.linked(.kill)
        _ = fate.linkLost("reset", at: 200)
        #expect(fate.pageWanted(since: 150, at: 209) == [])
        #expect(fate.pageWanted(since: 150, at: 210) == [.kill(.unlinked(.unreachable("reset")))])
    }

    @Test("applies the policy when a connected server does not answer", arguments: LostPolicy.allCases)
    func noAnswer(policy: LostPolicy) {
        var fate = GuestFate.linked(policy)
        #expect(fate.pageWanted(since: 200, at: 259) == [])
        switch policy {
        case .hold:
            #expect(fate.pageWanted(since: 200, at: 260) == [.hold(.unanswered), .hangUp])
            #expect(fate.state == .hangingUp)
        case .kill: #expect(fate.pageWanted(since: 200, at: 260) == [.kill(.unanswered)])
        }
    }

    @Test("applies the policy when memory is lacking for too long, and keeps the link", arguments: LostPolicy.allCases)
    func noMemory(policy: LostPolicy) {
        var fate = GuestFate.linked(policy)
        #expect(fate.pageWanted(since: 200, isShort: true, at: 259) == [])
        switch policy {
        case .hold:
            #expect(fate.pageWanted(since: 200, isShort: true, at: 260) == [.hold(.noMemory)])
            #expect(fate.state == .returning && fate.record.isHeld)
            #expect(fate.pageWanted(since: 200, isShort: true, at: 900) == [])
            #expect(fate.noPageWanted(at: 901) == [.continue])
            #expect(fate.state == .linked && !fate.record.isHeld)
        case .kill: #expect(fate.pageWanted(since: 200, isShort: true, at: 260) == [.kill(.noMemory)])
        }
    }

    @Test("ignores a late answer over a link that is being closed")
    func lateAnswer() {
        var fate = GuestFate.linked()
        _ = fate.pageWanted(since: 200, at: 260)
        #expect(fate.noPageWanted(at: 261) == [])
        #expect(fate.state == .hangingUp)
        #expect(fate.linkLost("closed", at: 262) == [.detach])
        #expect(fate.linked(to: own, at: 270) == [.attach(own, after: 8)])
        #expect(fate.noPageWanted(at: 271) == [.continue])
    }

    @Test("continues a held guest when the server has answered every waiting fault")
    func heldContinues() {
        var fate = GuestFate.held()
        #expect(fate.noPageWanted(at: 299) == [])
        #expect(fate.linked(to: own, at: 300) == [.attach(own, after: 100)])
        #expect(fate.pageWanted(since: 150, at: 400) == [])
        #expect(fate.state == .returning)
        #expect(fate.noPageWanted(at: 401) == [.continue])
        #expect(fate.state == .linked)
        #expect(fate.record == GuestFate.Record(snapshot: own, continued: 401))
    }

    @Test("does not count the time in which the guest was held")
    func heldTime() {
        var fate = GuestFate.returning()
        _ = fate.noPageWanted(at: 500)
        #expect(fate.pageWanted(since: 150, at: 559) == [])
        #expect(fate.pageWanted(since: 150, at: 560) == [.hold(.unanswered), .hangUp])
    }

    @Test("keeps a guest held, and reports nothing, while the link comes and goes")
    func heldLinkGoes() {
        var fate = GuestFate.returning()
        #expect(fate.linkLost("reset", at: 310) == [.detach])
        #expect(fate.linkFailed(.unreachable("refused")) == [])
        #expect(fate.pageWanted(since: 150, at: 1000) == [])
        #expect(fate.refused("another file") == [])
        #expect(fate.state == .held(since: 310, failure: .unreachable("refused")))
    }

    @Test("applies the policy at once when the server refuses", arguments: LostPolicy.allCases)
    func refused(policy: LostPolicy) {
        var fate = GuestFate.unlinked(policy)
        let loss = GuestLoss.refused("too short")
        #expect(fate.refused("too short") == (policy == .kill ? [.kill(loss)] : [.hold(loss)]))
        #expect(fate.refused("too short") == [])
    }

    @Test("ignores a refusal that comes after the last page", arguments: LostPolicy.allCases)
    func refusedAfterComplete(policy: LostPolicy) {
        var fate = GuestFate.linked(policy)
        _ = fate.linkLost("reset", at: 200)
        #expect(fate.completed(at: 210) == [.giveBack])
        #expect(fate.refused("another file") == [])
        #expect(fate.pageWanted(since: 150, at: 100_000) == [])
        #expect(fate.linked(to: other, at: 220) == [.hangUp])
        #expect(fate.state == .complete)
    }

    @Test("never attaches a link to a second snapshot", arguments: LostPolicy.allCases)
    func secondSnapshot(policy: LostPolicy) {
        var fate = GuestFate.linked(policy)
        _ = fate.linkLost("reset", at: 200)
        switch policy {
        case .hold: #expect(fate.linked(to: other, at: 210) == [.hold(.otherSnapshot), .hangUp])
        case .kill: #expect(fate.linked(to: other, at: 210) == [.kill(.otherSnapshot)])
        }
        #expect(fate.record.snapshot == own)
    }

    @Test("remembers the new identity of its snapshot, and takes the snapshot under either")
    func renewed() {
        var fate = GuestFate.linked()
        let renewed = GuestWorld.renewed
        #expect(fate.renewed(renewed) == [.remember(renewed)])
        #expect(fate.record.snapshot == renewed)
        _ = fate.linkLost("reset", at: 200)
        #expect(fate.renewed(own) == [])
        // A restarted server knows the newest times only.
        let restarted = GuestWorld.identity(digest: 1, changed: 2)
        #expect(fate.linked(to: restarted, at: 210) == [.attach(restarted, after: 10)])
        _ = fate.linkLost("reset", at: 220)
        #expect(fate.linked(to: own, at: 230) == [.hold(.otherSnapshot), .hangUp])
    }

    @Test("takes a snapshot whose identity was renewed while no server was connected")
    func renewedMeanwhile() {
        var fate = GuestFate.held()
        #expect(fate.linked(to: GuestWorld.renewed, at: 300) == [.attach(GuestWorld.renewed, after: 100)])
        #expect(fate.record.snapshot == GuestWorld.renewed)
    }

    @Test("is lost if its server tells the identity of another snapshot", arguments: LostPolicy.allCases)
    func renewedByAnother(policy: LostPolicy) {
        var fate = GuestFate.linked(policy)
        switch policy {
        case .hold: #expect(fate.renewed(other) == [.hold(.otherSnapshot), .hangUp])
        case .kill: #expect(fate.renewed(other) == [.kill(.otherSnapshot)])
        }
        var returning = GuestFate.returning()
        #expect(returning.renewed(other) == [.hangUp])
        #expect(returning.record.snapshot == own)
    }

    @Test("keeps a guest held until the server has the guest's snapshot again")
    func heldSecondSnapshot() {
        var fate = GuestFate.held()
        #expect(fate.linked(to: other, at: 300) == [.hangUp])
        #expect(fate.noPageWanted(at: 301) == [])
        #expect(fate.linkLost("closed", at: 302) == [.detach])
        #expect(fate.linked(to: own, at: 310) == [.attach(own, after: 8)])
        #expect(fate.noPageWanted(at: 311) == [.continue])
    }

    @Test("continues a held guest when its last page comes")
    func heldCompletes() {
        var fate = GuestFate.held()
        #expect(fate.completed(at: 300) == [.giveBack, .continue])
        #expect(!fate.record.isHeld)
        fate = .returning()
        #expect(fate.completed(at: 310) == [.giveBack, .continue, .hangUp])
    }

    @Test("continues a guest that an earlier worker held")
    func takenOver() {
        var next = GuestFate(onLost: .hold, after: giveUp, from: GuestFate.held().record)
        #expect(next.workerStarted(isComplete: false, at: 400) == [.connect])
        #expect(next.state == .held(since: 200, failure: nil))
        #expect(next.linked(to: other, at: 405) == [.hangUp])
        #expect(next.linkLost("closed", at: 406) == [.detach])
        #expect(next.linked(to: own, at: 410) == [.attach(own, after: nil)])
        #expect(next.noPageWanted(at: 411) == [.continue])
    }

    @Test("continues a held guest at once if every page is here when a worker starts")
    func takenOverComplete() {
        var next = GuestFate(onLost: .hold, after: giveUp, from: GuestFate.held().record)
        #expect(next.workerStarted(isComplete: true, at: 400) == [.giveBack, .continue])
        #expect(next.record == GuestFate.Record(snapshot: own, continued: 400))
        next = GuestFate(onLost: .hold, after: giveUp)
        #expect(next.workerStarted(isComplete: true, at: 400) == [.giveBack])
    }

    @Test("counts the time for which earlier workers had no server")
    func takenOverUnlinked() {
        var fate = GuestFate.linked(.kill)
        _ = fate.linkLost("reset", at: 200)
        var next = GuestFate(onLost: .kill, after: giveUp, from: fate.record)
        #expect(next.workerStarted(isComplete: false, at: 250) == [.connect])
        #expect(next.pageWanted(since: 251, at: 260) == [.kill(.unlinked(nil))])
    }

    @Test("applies the policy when no worker can serve the guest", arguments: LostPolicy.allCases)
    func workersFail(policy: LostPolicy) {
        var fate = GuestFate(onLost: policy, after: giveUp)
        #expect(fate.workersFailed(since: 100, isComplete: false, at: 159) == [])
        let actions = fate.workersFailed(since: 100, isComplete: false, at: 160)
        #expect(actions == (policy == .kill ? [.kill(.unserved)] : [.hold(.unserved)]))
        #expect(fate.workersFailed(since: 100, isComplete: false, at: 161) == [])
    }

    @Test("holds a guest that cannot be killed, and tries again when it is lost again")
    func killFails() {
        var fate = GuestFate.linked(.kill)
        #expect(fate.killFailed() == [])
        #expect(fate.pageWanted(since: 200, at: 260) == [.kill(.unanswered)])
        #expect(fate.killFailed() == [.hold(.unanswered), .hangUp])
        #expect(fate.state == .hangingUp && fate.record.isHeld)
        #expect(fate.linkLost("closed", at: 261) == [.detach])
        #expect(fate.linked(to: own, at: 270) == [.attach(own, after: 9)])
        #expect(fate.noPageWanted(at: 271) == [.continue])
        #expect(fate.pageWanted(since: 280, at: 340) == [.kill(.unanswered)])
    }

    @Test("leaves a guest alone that has every page and no worker", arguments: LostPolicy.allCases)
    func workersFailAfterComplete(policy: LostPolicy) {
        var fate = GuestFate(onLost: policy, after: giveUp)
        #expect(fate.workersFailed(since: 100, isComplete: true, at: 1000) == [])
        #expect(fate.state == .unserved)
    }
}

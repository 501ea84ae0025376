import PageProtocol
import Testing

@testable import FaultHandler

/// A walk over every interleaving of what can happen to a guest, its server and its workers.
@Suite("Whatever happens, a guest", .timeLimit(.minutes(10)))
struct GuestWalkTests {
    @Test("gets its own pages or the policy, and nothing after its end", arguments: LostPolicy.allCases)
    func holds(policy: LostPolicy) {
        let walk = GuestWalk(from: GuestWorld(policy))
        #expect(walk.finding == nil)
        #expect(walk.worlds.count > 1000)
        #expect(walk.stuck == nil)
        let names = Set(walk.worlds.compactMap { $0.fate?.state.name })
        let expected: Set = ["unlinked", "linked", "held", "hangingUp", "returning", "complete", "ended"]
        #expect(names == expected.union(policy == .kill ? ["killed"] : []))
    }

    @Test("is failed by a driver with a flaw, which the walk finds", arguments: GuestWorld.Flaw.allCases)
    func finds(flaw: GuestWorld.Flaw) {
        #expect(GuestWalk(from: GuestWorld(.hold, flaw: flaw)).finding != nil)
    }
}

/// A breadth-first walk over every world that can be reached.
private struct GuestWalk {
    private(set) var worlds: [GuestWorld]
    /// The property that does not hold, and the shortest path to the world in which it does not.
    private(set) var finding: String?
    /// The path to a world in which the guest lives and from which none leads to all of its pages.
    private(set) var stuck: String?
    private var origins: [(world: Int, step: GuestWorld.Step)] = []

    init(from start: GuestWorld) {
        worlds = [start]
        origins = [(0, .deed)]
        var indices = [start: 0]
        var predecessors: [[Int]] = [[]]
        var index = 0
        while index < worlds.count {
            let world = worlds[index]
            if let broken = world.broken ?? world.brokenProperty {
                finding = "\(broken): \(path(to: index))"
                return
            }
            for step in GuestWorld.Step.allCases where world.isPossible(step) {
                var next = world
                next.take(step)
                if let known = indices[next] {
                    predecessors[known].append(index)
                } else {
                    indices[next] = worlds.count
                    worlds.append(next)
                    origins.append((index, step))
                    predecessors.append([index])
                }
            }
            index += 1
        }
        var reaches = worlds.map { $0.process == .running && $0.fate?.state == .complete && $0.isIdle }
        var open = worlds.indices.filter { reaches[$0] }
        while let world = open.popLast() {
            for predecessor in predecessors[world] where !reaches[predecessor] {
                reaches[predecessor] = true
                open.append(predecessor)
            }
        }
        stuck = worlds.indices.first { worlds[$0].isAlive && !reaches[$0] }.map(path)
    }

    private func path(to index: Int) -> String {
        var (steps, current): ([GuestWorld.Step], Int) = ([], index)
        while current > 0 {
            steps.append(origins[current].step)
            current = origins[current].world
        }
        return steps.reversed().map { "\($0)" }.joined(separator: ", ")
    }
}

extension GuestWorld {
    /// The property that does not hold in this world; nil if all hold.
    fileprivate var brokenProperty: String? {
        guard let fate, isIdle else { return nil }
        if fate.record != record { return "the record is not the machine's" }
        switch fate.state {
        case .killed, .ended:
            return actsStill(fate) ? "a guest that was killed or has ended gets an action" : nil
        case .held, .hangingUp, .returning:
            return continues(fate) ? nil : "a held guest does not continue when its own server is back"
        case .unlinked, .linked:
            guard wanted != nil else { return nil }
            return isLost(fate) ? nil : "the policy is not applied to a guest that waits for too long"
        case .complete: return record.isHeld ? "a complete guest stays held" : nil
        case .unserved: return "a worker serves, and the machine does not know"
        }
    }

    private func actsStill(_ fate: GuestFate) -> Bool {
        let events: [(inout GuestFate) -> [GuestAction]] = [
            { $0.workerStarted(isComplete: false, at: 9) }, { $0.workerStarted(isComplete: true, at: 9) },
            { $0.workersFailed(since: 0, isComplete: false, at: 9) }, { $0.linked(to: GuestWorld.own, at: 9) },
            { $0.linked(to: GuestWorld.other, at: 9) }, { $0.renewed(GuestWorld.renewed) }, { $0.linkLost("", at: 9) },
            { $0.linkFailed(.unreachable("")) }, { $0.linkFailed(.turnedAway("")) }, { $0.refused("") },
            { $0.pageWanted(since: 0, at: 9) }, { $0.pageWanted(since: 0, isShort: true, at: 9) },
            { $0.noPageWanted(at: 9) }, { $0.completed(at: 9) },
        ]
        return events.contains { event in
            var next = fate
            return !event(&next).isEmpty || next != fate
        }
    }

    private func continues(_ fate: GuestFate) -> Bool {
        var (next, actions) = (fate, [GuestAction]())
        if link != nil { actions += next.linkLost("lost", at: now) }
        actions += next.linked(to: record.snapshot ?? GuestWorld.own, at: now)
        actions += next.noPageWanted(at: now)
        return actions.last == .continue && next.state == .linked
    }

    private func isLost(_ fate: GuestFate) -> Bool {
        guard let wanted else { return false }
        var next = fate
        let actions = next.pageWanted(since: wanted, at: now + GuestWorld.giveUp)
        return actions.contains { action in
            switch action {
            case .hold: policy == .hold
            case .kill: policy == .kill
            case .connect, .attach, .remember, .hangUp, .detach, .continue, .giveBack, .report: false
            }
        }
    }
}

extension GuestFate.State {
    fileprivate var name: String {
        switch self {
        case .unserved: "unserved"
        case .unlinked: "unlinked"
        case .linked: "linked"
        case .held: "held"
        case .hangingUp: "hangingUp"
        case .returning: "returning"
        case .complete: "complete"
        case .killed: "killed"
        case .ended: "ended"
        }
    }
}

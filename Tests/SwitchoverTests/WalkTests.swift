import Switchover
import Testing

@Suite("Every interleaving of the machines that ship")
struct WalkTests {
    @Test(
        "keeps every property in every reachable world",
        .timeLimit(.minutes(10)),
        arguments: [
            World.Setting(),
            World.Setting(startsStopped: true),
            World.Setting(policy: .wait),
            World.Setting(conts: 0, relinks: 2),
            World.Setting(usesLease: true),
            World.Setting(policy: .wait, usesLease: true, cancels: 0),
        ]
    )
    func everyWorld(setting: World.Setting) {
        let walk = Walk(from: World(setting))
        if let finding = walk.finding {
            Issue.record("\(finding)")
            return
        }
        print("walked \(walk.worlds.count) worlds: \(setting)")

        // What the walk is there to see was seen.
        #expect(walk.worlds.contains { $0.source.state == .completed && $0.destination.state == .completed })
        #expect(walk.worlds.contains { $0.heardPromise && $0.runsOnSource })
        #expect(walk.worlds.contains { $0.heardPong && $0.runsSent == 0 && $0.runsOnSource })
        #expect(walk.worlds.contains { $0.resumeFailed })
        #expect(walk.worlds.contains { $0.newestOnDestination && !$0.isSourceAlive && $0.runsOnDestination })
        #expect(walk.worlds.contains { $0.newestOnDestination && !$0.isDestinationAlive })
        #expect(walk.worlds.contains { $0.relinksLeft == 0 && $0.source.state == .completed })
        #expect(
            walk.worlds.contains { $0.runsSent == 2 && $0.runsOnDestination }
                == (setting.policy == .wait && setting.conts > 0)
        )
        #expect(setting.cancels == 0 || walk.worlds.contains { $0.source.state == .cancelled })
        #expect(walk.worlds.contains { $0.lease.epoch > 2 } == setting.usesLease)
        expectWayOn(in: walk)
    }

    /// From every world in which a living side may still run the workload there is a way on which it does.
    private func expectWayOn(in walk: Walk) {
        let stuck = walk.worldsThatCannotReach { $0.runsWhereItShould }
        for index in stuck where walk.worlds[index].mayStillRun {
            Issue.record("nobody can run any more after:\n\(walk.trace(to: index).joined(separator: "\n"))")
            return
        }
    }

    @Test("without a lease and an operator has one window: RUN is out, and the destination is never seen again")
    func window() throws {
        let walk = Walk(from: World(World.Setting(conts: 0, cancels: 0, operatorSpeaks: false)))
        try #require(walk.finding == nil)
        let stuck = walk.worldsThatCannotReach { $0.runsWhereItShould }.filter { walk.worlds[$0].mayStillRun }
        for index in stuck { #expect(walk.worlds[index].isWindow) }
        let first = try #require(stuck.first)
        print("the window without a lease:\n\(walk.trace(to: first).joined(separator: "\n"))")

        let leased = Walk(from: World(World.Setting(usesLease: true, conts: 0, cancels: 0, operatorSpeaks: false)))
        #expect(!leased.worldsThatCannotReach { $0.runsWhereItShould }.contains { leased.worlds[$0].mayStillRun })
    }

    @Test("can complete from every world in which nothing has failed", arguments: [false, true], [false, true])
    func completionStaysPossible(startsStopped: Bool, usesLease: Bool) throws {
        let setting = World.Setting(startsStopped: startsStopped, usesLease: usesLease, conts: 2, cancels: 0)
        let walk = Walk(from: World(setting), faults: false)
        try #require(walk.finding == nil)
        let stuck = walk.worldsThatCannotReach {
            $0.source.state == .completed && $0.destination.state == .completed && $0.destination.mayLeave
        }
        for index in stuck.prefix(1) {
            Issue.record("no completion after:\n\(walk.trace(to: index).joined(separator: "\n"))")
        }
    }
}

extension World {
    /// A side that lives has the newest state, and has not used up what this walk allows of links and tries.
    fileprivate var mayStillRun: Bool {
        guard newestOnDestination ? isDestinationAlive : isSourceAlive else { return false }
        // The lease's record is the commit point, even if the one that wrote it died before it knew.
        if lease.owner == .destination && !isDestinationAlive { return false }
        if resumeFailed && retriesLeft == 0 { return false }
        return !isDestinationAlive || relinksLeft > 0
    }

    /// RUN was sent, no answer came, and that destination is gone.
    fileprivate var isWindow: Bool {
        runIsOut && !heardRunning && !isDestinationAlive && !newestOnDestination
    }
}

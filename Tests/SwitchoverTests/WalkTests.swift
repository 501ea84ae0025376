import Switchover
import Testing

@Suite("Every interleaving of the machines that ship")
struct WalkTests {
    @Test(
        "keeps every property in every reachable world",
        .timeLimit(.minutes(1)),
        arguments: [false, true],
        [StartRefusalPolicy.takeBack, .wait]
    )
    func everyWorld(startsStopped: Bool, policy: StartRefusalPolicy) {
        let walk = Walk(from: World(startsStopped: startsStopped, policy: policy))
        if let finding = walk.finding {
            Issue.record("\(finding)")
            return
        }
        print("walked \(walk.worlds.count) worlds: startsStopped \(startsStopped), after a refused start \(policy)")

        // What the walk is there to see was seen.
        #expect(walk.worlds.contains { $0.source.state == .completed && $0.destination.state == .completed })
        #expect(walk.worlds.contains { $0.heardPromise && $0.runsOnSource })
        #expect(walk.worlds.contains { $0.heardPong && $0.runsSent == 0 && $0.runsOnSource })
        #expect(walk.worlds.contains { $0.resumeFailed })
        #expect(walk.worlds.contains { $0.newestOnDestination && !$0.isSourceAlive && $0.runsOnDestination })
        #expect(walk.worlds.contains { $0.newestOnDestination && !$0.isDestinationAlive })
        #expect(walk.worlds.contains { $0.runsSent == 2 && $0.runsOnDestination } == (policy == .wait))
    }

    @Test("can complete from every world in which nothing has failed", arguments: [false, true])
    func completionStaysPossible(startsStopped: Bool) throws {
        let walk = Walk(from: World(startsStopped: startsStopped, policy: .takeBack), faults: false)
        try #require(walk.finding == nil)
        let stuck = walk.worldsThatCannotReach {
            $0.source.state == .completed && $0.destination.state == .completed && $0.destination.mayLeave
        }
        for index in stuck.prefix(1) {
            Issue.record("no completion after:\n\(walk.trace(to: index).joined(separator: "\n"))")
        }
        print("walked \(walk.worlds.count) worlds without a fault: startsStopped \(startsStopped)")
    }
}

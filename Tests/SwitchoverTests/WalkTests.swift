import Foundation
import Identity
import Switchover
import Testing

@Suite("Every interleaving of the shipped machines")
struct WalkTests {
    @Test(
        "keeps every property in every reachable world",
        .timeLimit(.minutes(20)),
        arguments: World.Setting.walked
    )
    func everyWorld(setting: World.Setting) {
        var questions = Walk.Questions()
        questions.isGoal = { $0.runsWhereItShould }
        questions.isBound = { $0.mayStillRun }
        // The walk proves something only if it sees these worlds.
        questions.sights = [
            ("both complete", { $0.source.state == .completed && $0.destination.state == .completed }),
            ("taken back by a promise", { $0.heardPromise && $0.runsOnSource }),
            ("taken back before RUN", { $0.heardPong && $0.runsSent == 0 && $0.runsOnSource }),
            ("a resume that fails", { $0.resumeFailed }),
            (
                "the source dies after the start",
                { $0.newest == .destination && !$0.isSourceAlive && $0.runsOnDestination }
            ),
            ("the destination dies after the start", { $0.newest == .destination && !$0.isDestinationAlive }),
        ]
        func see(_ name: String, _ isSeen: @escaping (World) -> Bool) { questions.sights.append((name, isSeen)) }
        if setting.relinks > 0 {
            see("completed over the last link") { $0.relinksLeft == 0 && $0.source.state == .completed }
        }
        let secondRun = (
            "a second RUN that starts", { (world: World) in world.runsSent == 2 && world.runsOnDestination }
        )
        if setting.policy == .wait, setting.conts > 0 {
            questions.sights.append(secondRun)
        } else {
            questions.absurdities.append(secondRun)
        }
        if setting.cancels > 0 { see("cancelled") { $0.source.state == .cancelled } }
        if setting.usesLease {
            see("a third epoch") { $0.store.newest.map { $0.epoch > 2 } == true }
        } else {
            questions.absurdities.append(("a record without a lease", { $0.store.newest?.epoch != 1 }))
        }
        if setting.thirds > 0 {
            see("moved on by the source") { $0.runsOnThird && $0.source.state == .failed && $0.isSourceAlive }
            see("moved on by the destination") { $0.runsOnThird && $0.destination.state == .completed }
            if setting.usesLease { see("taken over") { $0.runsOnThird && !$0.isSourceAlive && $0.runsSent > 0 } }
        }
        if setting.ends > 0 { see("an agent that exits") { $0.endsLeft == 0 && !$0.isDestinationAlive } }
        if setting.pausesBeforeSwitchover {
            see("cancelled before the switchover") {
                $0.source.state == .cancelled && $0.runsSent == 0 && !$0.heardPong
            }
        }
        if setting.operatorErrs {
            see("an operator who errs") {
                $0.isSourceAlive && $0.isDestinationAlive && $0.destination.state == .failed && $0.hasDied
            }
        }
        if setting.attaches {
            see("a process that outlives its agent") { !$0.isSourceAlive && $0.runsOnSource && $0.heardPong }
            see("a process that stays stopped without its agent") {
                !$0.isSourceAlive && !$0.runsOnSource && $0.hasDeparted && $0.newest == .source
            }
            see("a process that has hung up and runs") { $0.hasHungUp && $0.runsOnSource && $0.source.state == .failed }
        }
        if setting.diesStarting { see("a start that dies") { $0.hasDied && $0.source.state == .failed } }
        let walk = Walk(from: World(setting), atMost: 40_000_000, asking: questions)
        if let finding = walk.finding {
            Issue.record("\(finding)")
            return
        }
        print("walked \(walk.count) worlds: \(setting)")
        #expect(!walk.isTooLarge)
        #expect(walk.unseen == [] && walk.absurd == [])
        // From every world in which a living side may still run the workload, a path leads to a world where it runs.
        for index in walk.stuck.prefix(1) {
            Issue.record("no side can run any more after:\n\(walk.trace(to: index).joined(separator: "\n"))")
        }
    }

    @Test("without a lease and an operator has one window: RUN is pending, and the destination never returns")
    func window() throws {
        var questions = Walk.Questions()
        questions.isGoal = { $0.runsWhereItShould }
        questions.isBound = { $0.mayStillRun }
        questions.isExcused = { $0.isWindow }
        let setting = World.Setting(conts: 0, cancels: 0, operatorSpeaks: false)
        let walk = Walk(from: World(setting), asking: questions)
        #expect(walk.finding == nil && walk.stuck.isEmpty)
        let first = try #require(walk.excused.first)
        print("the window without a lease:\n\(walk.trace(to: first).joined(separator: "\n"))")

        let leased = World.Setting(usesLease: true, conts: 0, cancels: 0, operatorSpeaks: false)
        let other = Walk(from: World(leased), asking: questions)
        #expect(other.stuck.isEmpty && other.excused.isEmpty)
    }

    @Test("can complete from every world in which nothing has failed", arguments: [false, true], [false, true])
    func completionStaysPossible(startsStopped: Bool, usesLease: Bool) throws {
        let setting = World.Setting(startsStopped: startsStopped, usesLease: usesLease, conts: 2, cancels: 0)
        let walk = Walk(from: World(setting), faults: false, asking: .completion)
        #expect(walk.finding == nil)
        for index in walk.stuck.prefix(1) {
            Issue.record("no completion after:\n\(walk.trace(to: index).joined(separator: "\n"))")
        }
    }

    @Test("moves to a destination of an earlier release, which cannot report the result of a start")
    func olderDestination() {
        let setting = World.Setting(conts: 0, cancels: 0, tellsStart: false)
        let walk = Walk(from: World(setting), by: .older, faults: false, asking: .completion)
        #expect(walk.finding == nil, "\(walk.finding.map { "\($0)" } ?? "")")
        #expect(walk.stuck.isEmpty)
        // Under faults, the order of messages still guarantees what it can without promises.
        let broken = Walk(
            from: World(World.Setting(conts: 0, tellsStart: false)),
            by: .older,
            checking: [
                .neverBothRun, .newestStateRuns, .devicesBeforeRun, .locksAreFreeBeforeRun, .completedIsComplete,
            ]
        )
        #expect(broken.finding == nil, "\(broken.finding.map { "\($0)" } ?? "")")
        print("walked \(walk.count) and \(broken.count) worlds with a destination of an earlier release")
    }
}

extension World.Setting {
    /// The settings to walk: in `Scripts/test` those that take a minute or two, in `Scripts/walk` all.
    fileprivate static var walked: [World.Setting] {
        let isAll = ProcessInfo.processInfo.environment["PAGEFERRY_WALK"] == "all"
        return isAll ? short + long : short
    }

    private static let short = [
        World.Setting(),
        World.Setting(startsStopped: true),
        World.Setting(policy: .wait),
        World.Setting(conts: 0, relinks: 2),
        World.Setting(usesLease: true),
        World.Setting(policy: .wait, usesLease: true, cancels: 0),
        World.Setting(startsStopped: true, usesLease: true),
        World.Setting(policy: .wait, usesLease: true, relinks: 0),
        World.Setting(usesLease: true, conts: 0, thirds: 1),
        World.Setting(startsStopped: true, usesLease: true, cancels: 0, thirds: 1),
        World.Setting(conts: 0, thirds: 1),
        World.Setting(conts: 0, hangs: true),
        World.Setting(usesLease: true, conts: 0, hangs: true),
        World.Setting(usesLease: true, conts: 0, silences: 1),
        World.Setting(conts: 0, ends: 1),
        World.Setting(usesLease: true, conts: 0, ends: 1),
        World.Setting(conts: 1, diesStarting: true),
        World.Setting(conts: 0, attaches: true),
        World.Setting(usesLease: true, conts: 0, relinks: 0, attaches: true),
        World.Setting(conts: 0, operatorErrs: true, pausesBeforeSwitchover: true),
    ]

    private static let long = [
        World.Setting(usesLease: true, conts: 0, operatorErrs: true, pausesBeforeSwitchover: true),
        World.Setting(policy: .wait, usesLease: true),
        World.Setting(policy: .wait, usesLease: true, conts: 1, relinks: 0, thirds: 1),
        World.Setting(startsStopped: true, usesLease: true, thirds: 1),
        World.Setting(usesLease: true, conts: 0, cancels: 0, relinks: 2, thirds: 1),
        World.Setting(usesLease: true, conts: 0, relinks: 0, thirds: 2, ends: 1),
        World.Setting(policy: .wait, usesLease: true, relinks: 0, hangs: true),
        World.Setting(usesLease: true, conts: 0, cancels: 2, relinks: 1, silences: 2),
        World.Setting(startsStopped: true, conts: 2, cancels: 2),
        World.Setting(conts: 0, relinks: 3),
        World.Setting(usesLease: true, conts: 0, ends: 2, diesStarting: true),
        World.Setting(usesLease: true, conts: 0, attaches: true),
        World.Setting(startsStopped: true, policy: .wait, attaches: true),
    ]
}

extension Walk.Questions {
    /// The question whether both sides can complete and the destination may leave.
    static var completion: Walk.Questions {
        var questions = Walk.Questions()
        questions.isGoal = {
            $0.source.state == .completed && $0.destination.state == .completed && $0.destination.mayLeave
        }
        return questions
    }
}

extension World {
    /// Whether a living side has the newest state, and links and tries are left to run it.
    fileprivate var mayStillRun: Bool {
        guard newest != .third, !hasDied, isAlive(newest) else { return false }
        if case .granted = third { return false }
        if hasHungUp, newest == .source { return false }
        // The lease's record is the commit point, even if its writer died before it knew.
        if store.newest?.owner == .destination && !isDestinationAlive { return false }
        if resumeFailed && retriesLeft == 0 { return false }
        return !isDestinationAlive || relinksLeft > 0
    }

    /// Whether RUN was sent, no answer came, and the destination is gone.
    fileprivate var isWindow: Bool {
        runIsOut && !heardRunning && !isDestinationAlive && !newestOnDestination
    }
}

import Foundation
import LinuxSystem
import Synchronization
import Testing

/// Rounds of migrations in which processes die and stop, the link breaks and starts are refused.
///
/// PAGEFERRY_TORTURE says how many rounds, PAGEFERRY_TORTURE_SEED the first round's seed; each next round has the next.
@Suite("Torture")
struct TortureTests {
    /// Rounds that are played at the same time, each between two hosts of its own.
    private static let lanes = 2

    private struct Results {
        var winners: [TortureRound.Winner: Int] = [:]
        var seconds: [TortureRound.Winner: Int] = [:]
        var times: [Double] = []
        var cameAgain = 0
        var neededWord = 0
        var failures: [String] = []
        var begun = 0
    }

    /// Three hosts, and a store that can be frozen, for one round after the other.
    private struct Site {
        let hosts: ThreeHosts
        let store: FreezableStore?

        init() throws {
            hosts = try ThreeHosts(rate: "1gbit")
            do {
                store = try FreezableStore()
            } catch {
                print("torture: no store hangs, as there is no file system that can be frozen: \(error)")
                store = nil
            }
        }
    }

    @Test("at most one side runs, no page is wrong, and whoever should run does", .timeLimit(.minutes(120)))
    func torture() throws {
        let environment = ProcessInfo.processInfo.environment
        let rounds = environment["PAGEFERRY_TORTURE"].flatMap { Int($0) } ?? 40
        let first =
            environment["PAGEFERRY_TORTURE_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0..<1 << 32)
        print("torture: \(rounds) rounds from seed \(first)")
        let sites = try (0..<TortureTests.lanes).map { _ in try Site() }
        let results = Mutex(Results())
        DispatchQueue.concurrentPerform(iterations: sites.count) { lane in
            while true {
                let round = results.withLock { results in
                    defer { results.begun += 1 }
                    return results.begun
                }
                guard round < rounds else { return }
                TortureTests.play(first &+ UInt64(round), sites[lane], results)
            }
        }
        results.withLock { results in
            for failure in results.failures { Issue.record("\(failure)") }
            let median = results.times.sorted().dropFirst(results.times.count / 2).first ?? 0
            print(
                "torture: median \(String(format: "%.2f", median)) s to the first end; it runs on: "
                    + "\(TortureTests.text(results.winners)); after a second migration on: "
                    + "\(TortureTests.text(results.seconds)), of which \(results.cameAgain) had a first source that came "
                    + "again later; \(results.neededWord) starts anew needed a word; \(results.failures.count) failed"
            )
            #expect(median < 1)
            guard rounds >= 20 else { return }
            // Faults that left nothing to be disturbed would prove nothing.
            for winner in [TortureRound.Winner.source, .destination] {
                #expect(results.winners[winner, default: 0] > rounds / 10, "it hardly ever runs on: \(winner.rawValue)")
            }
        }
    }

    private static func text(_ winners: [TortureRound.Winner: Int]) -> String {
        winners.map { "\($0.key.rawValue) \($0.value)" }.sorted().joined(separator: ", ")
    }

    @Test("the witness sees two sides that run at once, and how long one ran that was killed", .timeLimit(.minutes(1)))
    func witnessSees() throws {
        let workspace = try Workspace()
        let witness = try WitnessFile(path: workspace.file("witness"))
        let one = try start("one", witness, workspace)
        one.end()
        let deaths = [one.pid: try #require(one.deathTime)]
        let two = try start("two", witness, workspace)
        #expect(witness.overlap(deaths: deaths) == nil)
        // One after the other, which no overlap shows: the first is the destination here.
        #expect(witness.order == [one.pid, two.pid])
        #expect(witness.returned(in: [two.pid, one.pid]) == two.pid)
        #expect(witness.returned(in: [one.pid, two.pid]) == nil)
        let three = try start("three", witness, workspace)
        let (first, second) = try #require(witness.overlap(deaths: deaths))
        #expect(Set([first.pid, second.pid]) == [two.pid, three.pid])
        #expect(witness.operations(of: one.pid) > 0)
    }

    private func start(_ name: String, _ witness: WitnessFile, _ workspace: Workspace) throws -> Spawned {
        let options = ["--qmp", workspace.file(name), "--memory", "1MiB", "--witness", witness.path]
        let agent = try Spawned([Executable.pageferry, "source"] + options, log: workspace.file("\(name).log"))
        let deadline = Date(timeIntervalSinceNow: 20)
        while witness.operations(of: agent.pid) == 0 {
            guard Date() < deadline else { throw TestFailure("\(name) does not run") }
            usleep(1000)
        }
        return agent
    }

    private static func play(_ seed: UInt64, _ site: Site, _ results: borrowing Mutex<Results>) {
        let outcome = Result {
            try TortureRound(TorturePlan(seed: seed), hosts: site.hosts, store: site.store).play()
        }
        results.withLock { results in
            switch outcome {
            case .success(let outcome):
                results.winners[outcome.first, default: 0] += 1
                results.times.append(outcome.seconds)
                if let second = outcome.second { results.seconds[second, default: 0] += 1 }
                if outcome.cameAgain { results.cameAgain += 1 }
                if outcome.neededWord { results.neededWord += 1 }
            case .failure(let failure):
                results.failures.append("\(failure)")
                // At once, for whoever plays thousands.
                print("torture: seed \(seed) has failed")
            }
        }
    }
}

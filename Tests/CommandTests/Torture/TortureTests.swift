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
        var seconds: [Double] = []
        var failures: [String] = []
        var begun = 0
    }

    @Test("at most one side runs, no page is wrong, and whoever should run does", .timeLimit(.minutes(120)))
    func torture() throws {
        let environment = ProcessInfo.processInfo.environment
        let rounds = environment["PAGEFERRY_TORTURE"].flatMap { Int($0) } ?? 40
        let first =
            environment["PAGEFERRY_TORTURE_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0..<1 << 32)
        print("torture: \(rounds) rounds from seed \(first)")
        let hosts = try (0..<TortureTests.lanes).map { _ in try TwoHosts(rate: "1gbit") }
        let results = Mutex(Results())
        DispatchQueue.concurrentPerform(iterations: hosts.count) { lane in
            while true {
                let round = results.withLock { results in
                    defer { results.begun += 1 }
                    return results.begun
                }
                guard round < rounds else { return }
                TortureTests.play(first &+ UInt64(round), hosts[lane], results)
            }
        }
        results.withLock { results in
            for failure in results.failures { Issue.record("\(failure)") }
            let median = results.seconds.sorted()[results.seconds.count / 2]
            let ends = results.winners.map { "\($0.key.rawValue) \($0.value)" }.sorted().joined(separator: ", ")
            print("torture: median \(String(format: "%.2f", median)) s a round; it runs on: \(ends)")
            #expect(median < 1)
            guard rounds >= 20 else { return }
            // Faults that left nothing to be disturbed would prove nothing.
            for winner in [TortureRound.Winner.source, .destination] {
                #expect(results.winners[winner, default: 0] > rounds / 10, "it hardly ever runs on: \(winner.rawValue)")
            }
        }
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
        #expect(witness.returned(to: two.pid, from: one.pid)?.pid == two.pid)
        #expect(witness.returned(to: one.pid, from: two.pid) == nil)
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

    private static func play(_ seed: UInt64, _ hosts: TwoHosts, _ results: borrowing Mutex<Results>) {
        let begin = MonotonicClock.now()
        let outcome = Result { try TortureRound(TorturePlan(seed: seed), hosts: hosts).play() }
        let seconds = Double(MonotonicClock.now() - begin) / 1e9
        results.withLock { results in
            results.seconds.append(seconds)
            switch outcome {
            case .success(let winner): results.winners[winner, default: 0] += 1
            case .failure(let failure): results.failures.append("\(failure)")
            }
        }
    }
}

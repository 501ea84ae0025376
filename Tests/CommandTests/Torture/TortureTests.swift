import Foundation
import LinuxSystem
import Synchronization
import Testing

/// Rounds of migrations under random faults and commands of operators.
///
/// Processes die and stop, the link breaks, connections open late, the run lease's store hangs, and starts are refused.
/// PAGEFERRY_TORTURE gives the number of rounds and PAGEFERRY_TORTURE_SEED the seed of the first round; each further
/// round has the next seed.
@Suite("Torture")
struct TortureTests {
    /// The number of rounds that are played at the same time, each between hosts of its own.
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

    @Test("at most one side runs, no page is wrong, and the workload runs where it should", .timeLimit(.minutes(120)))
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
        try results.withLock { results in
            for failure in results.failures { Issue.record("\(failure)") }
            let openings = try sites.map { try $0.hosts.lostOpenings() }.reduce(0, +)
            let median = results.times.sorted().dropFirst(results.times.count / 2).first ?? 0
            print(
                "torture: median \(String(format: "%.2f", median)) s to the first end; it runs on: "
                    + "\(TortureTests.text(results.winners)); after a second migration on: "
                    + "\(TortureTests.text(results.seconds)), of which \(results.cameAgain) had a first source that came "
                    + "again later; \(openings) openings of connections were lost; \(results.neededWord) starts anew needed a word; \(results.failures.count) failed"
            )
            // About half of the rounds wait for a time limit of a second, so that the median of some seeds lies beyond it.
            #expect(median < 2)
            guard rounds >= 20 else { return }
            // If the faults prevented nearly every outcome of one kind, the rounds would prove nothing.
            for winner in [TortureRound.Winner.source, .destination] {
                #expect(results.winners[winner, default: 0] > rounds / 10, "it hardly ever runs on: \(winner.rawValue)")
            }
        }
    }

    private static func text(_ winners: [TortureRound.Winner: Int]) -> String {
        winners.map { "\($0.key.rawValue) \($0.value)" }.sorted().joined(separator: ", ")
    }

    @Test("the witness detects two sides that run at once, and when a killed side stopped", .timeLimit(.minutes(1)))
    func witnessSees() throws {
        let workspace = try Workspace()
        let witness = try WitnessFile(path: workspace.file("witness"))
        let one = try start("one", witness, workspace)
        one.end()
        let deaths = [one.pid: try #require(one.deathTime)]
        let two = try start("two", witness, workspace)
        #expect(witness.overlap(deaths: deaths) == nil)
        // The processes ran one after the other without an overlap, and the chain names the first as the destination.
        #expect(witness.order == [one.pid, two.pid])
        #expect(witness.returned(in: [two.pid, one.pid]) == two.pid)
        #expect(witness.returned(in: [one.pid, two.pid]) == nil)
        let three = try start("three", witness, workspace)
        let (first, second) = try #require(witness.overlap(deaths: deaths))
        #expect(Set([first.pid, second.pid]) == [two.pid, three.pid])
        #expect(witness.operations(of: one.pid) > 0)
    }

    @Test(
        "a write into a frozen store waits for the thaw, even after a kill, and a read does not wait",
        .enabled(if: FreezableStore.isPossible),
        .timeLimit(.minutes(1))
    )
    func frozenStore() throws {
        let store = try FreezableStore()
        let workspace = try Workspace()
        try Data("old".utf8).write(to: URL(fileURLWithPath: "\(store.path)/file"))
        try store.freeze()
        let writer = try Spawned(
            ["/bin/sh", "-c", "echo begun; echo new > \(store.path)/file"],
            log: workspace.file("writer.log")
        )
        while writer.text != "begun\n" { usleep(1000) }
        writer.kill()
        #expect(writer.wait(seconds: 0.2) == nil)
        #expect(try String(contentsOfFile: "\(store.path)/file", encoding: .utf8) == "old")
        store.thaw()
        #expect(writer.wait(seconds: 10) == 128 + SIGKILL)
    }

    @Test("a connection whose opening is lost opens a second later, and others at once", .timeLimit(.minutes(1)))
    func lostOpenings() throws {
        let hosts = try ThreeHosts(rate: "1gbit")
        let workspace = try Workspace()
        let server = try Spawned(
            inside(hosts.third) + [
                "python3", "-m", "http.server", "--bind", hosts.address(of: hosts.third, from: hosts.source),
            ],
            log: workspace.file("server.log")
        )
        defer { server.end() }
        let link = hosts.link(hosts.source, hosts.third)
        let (lost, other) = (40_002, 40_004)
        while try connect(from: hosts, other - 4) == nil { #expect(server.isAlive) }
        try link.loseOpenings(hosts.source, port: 1)
        let slow = try Spawned(client(from: hosts, lost), log: workspace.file("slow.log"))
        defer { slow.end() }
        #expect(try connect(from: hosts, other).map { $0 < 0.9 } == true)
        while try link.lostOpenings(of: hosts.source) == 0 { #expect(slow.isAlive) }
        try link.loseNoOpenings(hosts.source)
        #expect(slow.wait(seconds: 20) == 0)
        #expect(
            Double(slow.text.trimmingCharacters(in: .whitespacesAndNewlines)).map { $0 > 0.9 } == true,
            "\(slow.text)"
        )
    }

    private func inside(_ host: String) -> [String] { ["/sbin/ip", "netns", "exec", host] }

    /// Connects from a port, and prints how many seconds that took.
    private func client(from hosts: ThreeHosts, _ port: Int) -> [String] {
        let address = hosts.address(of: hosts.third, from: hosts.source)
        let program = """
            import socket, time
            begun = time.monotonic()
            socket.create_connection(("\(address)", 8000), source_address=("", \(port))).close()
            print(time.monotonic() - begun)
            """
        return inside(hosts.source) + ["python3", "-c", program]
    }

    private func connect(from hosts: ThreeHosts, _ port: Int) throws -> Double? {
        let words = client(from: hosts, port)
        let finished = try Executable.run(words[0], Array(words.dropFirst()))
        return Double(finished.output.trimmingCharacters(in: .whitespacesAndNewlines))
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
                // Print each failure at once, since a run may last thousands of rounds.
                print("torture: seed \(seed) has failed:\n\(failure)\n")
                results.failures.append("\(failure)".split(separator: "\n").prefix(2).joined(separator: ": "))
            }
        }
    }
}

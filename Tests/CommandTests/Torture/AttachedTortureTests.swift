import Foundation
import Glibc
import LinuxSystem
import Testing

/// Rounds in which a workload in an attached process moves, while agents and processes are killed, stopped and lie.
///
/// PAGEFERRY_TORTURE gives the number of rounds and PAGEFERRY_TORTURE_SEED the seed of the first round, as for the other
/// torture.
@Suite("Torture of attached processes")
struct AttachedTortureTests {
    @Test("at most one runs, no page is wrong, and none resumes after RELEASE", .timeLimit(.minutes(120)))
    func torture() throws {
        let environment = ProcessInfo.processInfo.environment
        let rounds = environment["PAGEFERRY_TORTURE"].flatMap { Int($0) } ?? 12
        let first = environment["PAGEFERRY_TORTURE_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0..<1 << 32)
        print("torture of attached processes: \(rounds) rounds from seed \(first)")
        let workspace = try Workspace()
        let program = try workspace.compile("witnessed")
        var outcomes: [String: Int] = [:]
        for round in 0..<UInt64(rounds) {
            let seed = first &+ round
            do {
                let outcome = try AttachedRound(seed: seed, program: program).play()
                outcomes[outcome, default: 0] += 1
            } catch {
                Issue.record("round \(seed): \(error)")
            }
        }
        print(
            "torture of attached processes: "
                + outcomes.sorted { $0.key < $1.key }.map { "\($1) \($0)" }.joined(separator: ", ")
        )
    }
}

/// One round: two agents, a program at each, one `migrate`, and one or two faults at random moments.
private final class AttachedRound {
    private enum Fault { case kill, stop, terminate, cancel }
    private enum Who: String, CaseIterable { case source, destination, leaving, arriving }

    private let seed: UInt64
    private let program: String
    private let workspace: Workspace
    private var random: SplitMix64
    private var processes: [Who: Spawned] = [:]
    /// The faults so far, for the report of a failure.
    private var plan: [String] = []

    init(seed: UInt64, program: String) throws {
        self.seed = seed
        self.program = program
        workspace = try Workspace()
        random = SplitMix64(state: seed)
    }

    /// Plays the round.
    ///
    /// - Returns: what became of the workload.
    /// - Throws: which promise was broken.
    func play() throws -> String {
        defer { for process in processes.values { process.end() } }
        let witness = workspace.file("witness")
        guard FileManager.default.createFile(atPath: witness, contents: Data(count: 4096)) else {
            throw TestFailure("cannot create \(witness)")
        }
        let usesLease = Bool.random(using: &random)
        let lies = [Who.leaving, .arriving].filter { _ in random.chance(of: 6) }
        try start(.source, agent: "source", usesLease, ["--attach", workspace.file("a.attach")])
        let port = UInt16.random(in: 20_000..<30_000, using: &random)
        let listen = ["--listen", "127.0.0.1:\(port)", "--attach", workspace.file("b.attach")]
        try start(.destination, agent: "destination", usesLease, listen)
        try start(.leaving, at: "a.attach", "runs", witness, index: "0", lies.contains(.leaving))
        try start(.arriving, at: "b.attach", "waits", witness, index: "1", lies.contains(.arriving))
        try wait(for: "ready", of: .source)
        try wait(for: "has attached", of: .destination)
        let migrate = try Spawned(
            [Executable.pageferry, "migrate", "--source", workspace.file("a"), "--destination", workspace.file("b")],
            log: workspace.file("migrate.log")
        )
        defer { migrate.end() }
        var isGentle = lies.isEmpty
        for _ in 0..<Int.random(in: 1...2, using: &random) {
            let latest: Double = [0.05, 0.2, 0.6].randomElement(using: &random) ?? 0
            Thread.sleep(forTimeInterval: Double.random(in: 0...latest, using: &random))
            try strike(&isGentle)
        }
        _ = migrate.wait(seconds: 20)
        return try judge(witness, isGentle, migrate)
    }

    private func start(_ who: Who, agent command: String, _ usesLease: Bool, _ options: [String]) throws {
        let name = who == .source ? "a" : "b"
        let lease = workspace.file("lease")
        try FileManager.default.createDirectory(atPath: lease, withIntermediateDirectories: true)
        let patience = ["--recover-for", "3s", "--peer-timeout", "1s"] + (usesLease ? ["--lease", lease + "/w"] : [])
        processes[who] = try Spawned(
            [Executable.pageferry, command, "--qmp", workspace.file(name)] + options + patience,
            log: workspace.file(name + ".log")
        )
        // The socket's file is there before the agent listens at it.
        try wait(for: who == .source ? "waiting for a process at" : "ready", of: who)
    }

    private func start(
        _ who: Who,
        at socket: String,
        _ role: String,
        _ witness: String,
        index: String,
        _ lies: Bool
    ) throws {
        var arguments = [program, workspace.file(socket), role, "16", witness, index]
        if lies {
            let lie = ["hangup", "exit", "twice"].randomElement(using: &random) ?? "exit"
            // The numbers of LOAD, RUN, PREPARE, STOP, SAVE and RESUME.
            let request = [3, 4, 8, 9, 10, 12].randomElement(using: &random) ?? 4
            arguments += [lie, "\(request)"]
            plan.append("\(who): \(lie) at \(request)")
        }
        processes[who] = try Spawned(arguments, log: workspace.file("\(who).log"))
    }

    private func wait(for text: String, of who: Who) throws {
        let end = MonotonicClock.now() + 20_000_000_000
        while processes[who]?.text.contains(text) != true {
            guard MonotonicClock.now() < end else {
                throw TestFailure("\(who) never says '\(text)': \(processes[who]?.text ?? "")")
            }
            Thread.sleep(forTimeInterval: 0.01)
        }
    }

    /// Does one fault.
    ///
    /// - Parameter isGentle: set to false by a fault after which nobody may run.
    private func strike(_ isGentle: inout Bool) throws {
        let who = Who.allCases.randomElement(using: &random) ?? .source
        let fault = [Fault.kill, .stop, .stop, .terminate, .cancel].randomElement(using: &random) ?? .stop
        plan.append("\(who): \(fault)")
        switch fault {
        case .cancel:
            _ = try Spawned(
                [Executable.pageferry, "cancel", workspace.file("a")],
                log: workspace.file("cancel.log")
            ).wait(seconds: 20)
        case .stop:
            processes[who]?.signal(SIGSTOP)
            let time: Double = [0.05, 0.5, 1.8].randomElement(using: &random) ?? 0
            Thread.sleep(forTimeInterval: time)
            processes[who]?.signal(SIGCONT)
        case .terminate where who == .source || who == .destination:
            isGentle = false
            processes[who]?.signal(SIGTERM)
        case .kill, .terminate:
            isGentle = false
            processes[who]?.kill()
        }
    }

    private func judge(_ witness: String, _ isGentle: Bool, _ migrate: Spawned) throws -> String {
        func fail(_ what: String) -> TestFailure {
            let logs = Who.allCases.map { "-- \($0)\n\(processes[$0]?.text.suffix(1500) ?? "")" }
            return TestFailure(
                "\(what) after \(plan.joined(separator: "; "))\n-- migrate\n\(migrate.text.suffix(800))\n"
                    + logs.joined(separator: "\n")
            )
        }
        let before = try numbers(witness)
        Thread.sleep(forTimeInterval: 0.4)
        let after = try numbers(witness)
        guard after[8] == 0 else { throw fail("both sides have run, \(after[8]) steps") }
        guard after[9] == 0 else { throw fail("\(after[9]) pages were wrong") }
        let left = processes[.leaving]?.text ?? ""
        if let release = left.range(of: "released"), left[release.upperBound...].contains("resumed") {
            throw fail("the source's process was resumed after RELEASE")
        }
        let runners = [Who.leaving, .arriving].enumerated().filter { after[$0.offset] > before[$0.offset] }.map(
            \.element
        )
        guard runners.count <= 1 else { throw fail("both sides run") }
        guard let runner = runners.first else {
            guard !isGentle else { throw fail("nobody runs, although nothing was killed") }
            return "with nobody"
        }
        let isWhole = runner == .leaving || processes[.arriving]?.text.contains("complete") == true
        guard isWhole else { return "\(runner) with missing pages" }
        // Without agents, nothing is placed or stopped any more.
        for who in [Who.source, .destination] { processes[who]?.end() }
        processes[runner]?.signal(SIGUSR1)
        guard processes[runner]?.wait(seconds: 20) == 0 else { throw fail("\(runner) has lost steps") }
        return "\(runner)"
    }

    private func numbers(_ witness: String) throws -> [UInt64] {
        let bytes = try Data(contentsOf: URL(fileURLWithPath: witness))
        return (0..<10).map { index in
            bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self) }
        }
    }
}

import Foundation
import LinuxSystem

/// A round of migrations between three hosts under faults, and the judgement of their outcome.
///
/// A round is a first migration, a second one in some plans, the end of the agent that then has the workload, and a
/// start of the workload anew.
final class TortureRound {
    /// The side that has the workload after a migration.
    enum Winner: String {
        case source, destination
        /// The side that ran the workload, or the only side that could run it, was killed.
        case nobody
        /// The workload runs at the destination, but the source was killed before every page had arrived.
        case destinationWithoutMemory = "destination, memory lost"
    }

    /// The outcome of a round without a failure.
    struct Outcome {
        var first: Winner
        /// The time until the first migration was judged.
        var seconds: Double
        var second: Winner?
        /// Whether the first migration's source reconnected after the destination had begun the second migration.
        var cameAgain = false
        /// Whether the new start needed a command of the operator.
        var neededWord = false
    }

    static let deadline: Double = 20

    let plan: TorturePlan
    let hosts: ThreeHosts
    /// The store of the run leases on a file system that can be frozen; nil if the host has none.
    let store: FreezableStore?
    let workspace: Workspace
    let witness: WitnessFile
    var agents: [TortureAgent] = []
    var moves: [TortureMove] = []
    let taker = DiskTaker()
    var quietSince: (at: UInt64, views: [TortureAgent.View])?
    /// When the operator last gave a command because nothing changed any more.
    var lastWord: UInt64 = 0
    private var log: [String] = []
    private let begun = MonotonicClock.now()
    private let leases: String

    /// Makes the files that all agents of the round share.
    init(_ plan: TorturePlan, hosts: ThreeHosts, store: FreezableStore?) throws {
        self.plan = plan
        self.hosts = hosts
        self.store = store
        workspace = try Workspace()
        witness = try WitnessFile(path: workspace.file("witness"))
        leases = "\(store?.path ?? workspace.path)/\(plan.seed)-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: leases, withIntermediateDirectories: false)
        try Data(count: 4096).write(to: URL(fileURLWithPath: workspace.file("disk")))
    }

    /// The workload's lease, as in `--lease`.
    var lease: String { "\(leases)/w" }

    func say(_ line: String) {
        log.append("\((MonotonicClock.now() - begun) / 1_000_000) ms: \(line)")
    }

    @discardableResult
    func until<Value>(_ what: String, _ look: () throws -> Value?) throws -> Value {
        let deadline = MonotonicClock.now() + UInt64(TortureRound.deadline * 1e9)
        while MonotonicClock.now() < deadline {
            if let value = try look() { return value }
            usleep(3000)
        }
        throw TestFailure("\(what) does not come")
    }

    // MARK: Agents

    private func start(_ name: String, on host: String, _ arguments: [String]) throws -> TortureAgent {
        var common = ["--peer-timeout", "300ms", "--recover-for", "20s", "--witness", witness.path, "--insecure"]
        common += ["--allow-disk", workspace.path]
        if plan.usesLease { common += ["--lease", lease] }
        let agent = try TortureAgent(name, on: host, in: workspace, arguments + common)
        agents.append(agent)
        return agent
    }

    /// Starts an agent with a new workload.
    func startSource(_ name: String) throws -> TortureAgent {
        var options = ["source", "--memory", "\(plan.mebibytes)MiB", "--threads", "\(plan.threads)"]
        options += ["--think-time", "20us", "--on-start-failure", plan.waitsAfterRefusal ? "wait" : "resume"]
        for device in plan.devices {
            options += ["--device", device == "disk:" ? "disk:\(workspace.file("disk"))" : device]
        }
        return try start(name, on: hosts.source, options)
    }

    /// Starts an agent that waits for a workload from another host.
    func startDestination(_ name: String, on host: String, from source: String) throws -> TortureAgent {
        let listen = "\(hosts.address(of: host, from: source)):7000"
        return try start(
            name,
            on: host,
            ["destination", "--fault-threads", "\(plan.faultThreads)", "--listen", listen]
                + (plan.startsStopped ? ["--stopped"] : [])
        )
    }

    func waitUntilListening(_ agent: TortureAgent) throws {
        try until("the \(agent.name)") { try agent.isReady("inmigrate") ? true : nil }
        try until("a \(agent.name) that listens") { try agent.view().state == "setup" ? true : nil }
    }

    // MARK: The round

    /// Plays the round.
    ///
    /// - Throws: ``TestFailure`` with everything that is known, if anything is wrong.
    func play() throws -> Outcome {
        do {
            return try judged()
        } catch {
            throw TestFailure("\(plan)\n\(error)\n\(account())")
        }
    }

    private func judged() throws -> Outcome {
        let source = try startSource("source")
        let destination = try startDestination("destination", on: hosts.destination, from: hosts.source)
        try until("the source") { try source.isReady("\"running\":true") ? true : nil }
        try waitUntilListening(destination)
        if plan.pushLimit > 0 {
            let limit = plan.pushLimit << 20
            let command = "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"max-postcopy-bandwidth\":\(limit)}}"
            _ = try source.ask(command)
        }
        let first = try TortureMove(1, from: source, to: destination, over: hosts, in: workspace)
        if plan.diskIsTaken {
            // The source holds the lock until it grants the start, and the waiting taker gets it in between.
            try taker.take(workspace.file("disk"))
        }
        var winner = try play(first, plan.blows) { [plan] in
            if let next = plan.next, next.sourceResumes != nil { try self.leaveUnfinished(first, next) }
        }
        var outcome = Outcome(first: winner, seconds: Double(MonotonicClock.now() - begun) / 1e9)
        var last = first
        if let next = plan.next, let second = try self.second(after: first, winner, next.way) {
            say("then \(next.way): from \(second.source.name) to \(second.destination.name)")
            winner = try play(second, next.blows, whileResuming: first.isUnfinished ? (first, next) : nil)
            outcome.second = winner
            last = second
        } else if let next = plan.next, first.isUnfinished {
            try letHear(first, next)
        }
        if outcome.first == .destination { outcome.cameAgain = try checkCompleted(first) }
        let holder: TortureAgent? =
            switch winner {
            case .source: last.source
            case .destination: last.destination
            case .nobody, .destinationWithoutMemory: nil
            }
        outcome.neededWord = try startAnew(after: holder)
        end()
        try checkWitness()
        return outcome
    }

    /// Plays a migration until it is settled which side has the workload, and judges the outcome.
    private func play(
        _ move: TortureMove,
        _ blows: [TorturePlan.Blow],
        whileResuming resuming: (move: TortureMove, next: TorturePlan.Next)? = nil,
        before: () throws -> Void = {}
    ) throws -> Winner {
        moves.append(move)
        try move.begin()
        try beat(move, blows, resuming)
        if !move.migrate.isAlive, move.source.isAlive, move.destination.isAlive, wasKilled(move.migrate) {
            say("migrate is run again")
            try move.begin()
        }
        try before()
        quietSince = nil
        lastWord = MonotonicClock.now()
        let winner = try until("an end") { try settled(move) }
        say("the end: \(winner.rawValue)")
        try check(winner, of: move)
        return winner
    }

    /// Makes the second migration, if there can be one.
    private func second(
        after first: TortureMove,
        _ winner: Winner,
        _ way: TorturePlan.Next.Way
    ) throws -> TortureMove? {
        let source: TortureAgent
        var destination: TortureAgent?
        switch winner {
        case .source:
            source = first.source
            if way == .again, first.destination.isAlive, !first.destination.isLeaving {
                destination = first.destination
            }
        case .destination:
            source = first.destination
            if way == .again, first.source.isAlive, !first.source.isLeaving, !first.isUnfinished {
                destination = first.source
            }
        case .nobody, .destinationWithoutMemory: return nil
        }
        guard source.isAlive, !source.isLeaving else { return nil }
        if destination == nil {
            let third = try startDestination("third", on: hosts.third, from: source.host)
            try waitUntilListening(third)
            destination = third
        }
        return try destination.map { try TortureMove(2, from: source, to: $0, over: hosts, in: workspace) }
    }

    /// Stops or cuts off the source when most of the memory has arrived, and waits until the destination completes.
    private func leaveUnfinished(_ move: TortureMove, _ next: TorturePlan.Next) throws {
        try until("memory at the destination") {
            if try settled(move) != nil { return true }
            guard let (came, total) = try move.destination.arrival(), total > 0 else { return nil }
            return came * 100 >= total * next.sourceStops ? true : nil
        }
        guard move.source.isAlive, move.destination.isAlive else { return }
        move.isUnfinished = true
        if next.isCutOff { try move.link.loseWhat(move.destination.host) } else { move.source.stop() }
        let deadline = MonotonicClock.now() + 400_000_000
        while MonotonicClock.now() < deadline {
            let there = try move.destination.view()
            if there.state == "completed", there.isRunning {
                return say("the source hears nothing more, and its destination has completed")
            }
            usleep(3000)
        }
        try letHear(move, next)
        move.isUnfinished = false
    }

    /// Lets the source of an unfinished migration receive again, so that it learns of the completion.
    func letHear(_ move: TortureMove, _ next: TorturePlan.Next) throws {
        say("the \(move.source.name) hears again")
        if next.isCutOff { try move.link.loseNothing(move.destination.host) } else { move.source.goOn() }
    }

    func wasKilled(_ process: Spawned) -> Bool { process.exitStatus == 128 + SIGKILL }

    /// Ends all processes, and every freeze, cut and foreign lock.
    func end() {
        store?.thaw()
        hosts.mend()
        taker.free()
        for agent in agents { agent.end() }
        for move in moves { for process in move.processes { process.end() } }
    }

    /// Everything that is known about the round, for a person who looks for the reason of a failure.
    private func account() -> String {
        store?.thaw()
        hosts.mend()
        var text = log.joined(separator: "\n")
        for agent in agents {
            if agent.isStopped { agent.goOn() }
            text += "\n\(agent.name) \(agent.pid) \(agent.instance): "
            text += "\((try? agent.view()).map { "\($0)" } ?? "no answer"), "
            text += agent.process.exitStatus.map { "exit \($0)" } ?? "alive"
            if let report = try? agent.ask("pageferry-report") { text += "\n\(report)" }
        }
        for run in witness.runs { text += "\n\(run)" }
        if plan.usesLease, let shown = try? Executable.pageferry("lease", lease) { text += "\n\(shown)" }
        end()
        for process in agents.map(\.process) + moves.flatMap(\.processes) where process.logPath != "/dev/null" {
            text += "\n--- \(process.logPath)\n\(process.text)"
        }
        return text
    }

    deinit {
        end()
        try? FileManager.default.removeItem(atPath: leases)
    }
}

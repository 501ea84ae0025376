import Foundation
import LinuxSystem

/// One migration between two hosts to which bad things happen, and the judgement of how it ended.
final class TortureRound {
    /// Who has the workload in the end.
    enum Winner: String {
        case source, destination
        /// A side that ran it, or alone could run it, was killed.
        case nobody
        /// It runs at the destination, but the source was killed before all of its memory had come.
        case destinationWithoutMemory = "destination, memory lost"
    }

    private static let port = 7000
    private static let deadline: Double = 15

    private let plan: TorturePlan
    private let hosts: TwoHosts
    private let workspace: Workspace
    private let witness: WitnessFile
    private let source: Spawned
    private let destination: Spawned
    private var migrate: Spawned
    private var cancels: [(process: Spawned, isJudged: Bool)] = []
    private var isStopped = false
    private let taker = DiskTaker()
    private var clients: [pid_t: QMPLine] = [:]
    private var log: [String] = []
    private let begun = MonotonicClock.now()

    /// Starts both agents and the migration.
    init(_ plan: TorturePlan, hosts: TwoHosts) throws {
        self.plan = plan
        self.hosts = hosts
        workspace = try Workspace()
        witness = try WitnessFile(path: workspace.file("witness"))
        let disk = workspace.file("disk")
        try Data(count: 4096).write(to: URL(fileURLWithPath: disk))
        var common = ["--peer-timeout", "300ms", "--recover-for", "20s", "--witness", witness.path]
        if plan.usesLease {
            try FileManager.default.createDirectory(atPath: workspace.file("lease"), withIntermediateDirectories: true)
            common += ["--lease", workspace.file("lease/w")]
        }
        var options = ["--memory", "\(plan.mebibytes)MiB", "--threads", "\(plan.threads)", "--think-time", "20us"]
        options += ["--on-start-failure", plan.waitsAfterRefusal ? "wait" : "resume"]
        for device in plan.devices { options += ["--device", device == "disk:" ? "disk:\(disk)" : device] }
        let folder = workspace
        func spawn(_ host: String, _ socket: String, _ arguments: [String]) throws -> Spawned {
            try Spawned(
                ["/sbin/ip", "netns", "exec", host, Executable.pageferry] + arguments + common,
                log: folder.file("\(socket).log")
            )
        }
        source = try spawn(hosts.source, "source", ["source", "--qmp", workspace.file("source")] + options)
        destination = try spawn(
            hosts.destination,
            "destination",
            ["destination", "--qmp", workspace.file("destination"), "--insecure"]
                + ["--fault-threads", "\(plan.faultThreads)"]
                + ["--allow-disk", workspace.path]
                + ["--listen", "\(TwoHosts.destinationAddress):\(TortureRound.port)"]
        )
        // Replaced below: a process that ends at once.
        migrate = try Spawned(["/bin/true"], log: "/dev/null")
    }

    // MARK: Talking with the agents

    private func name(_ agent: Spawned) -> String { agent === source ? "source" : "destination" }

    private func say(_ line: String) {
        log.append("\((MonotonicClock.now() - begun) / 1_000_000) ms: \(line)")
    }

    /// Asks an agent, or returns nil if it is dead.
    private func ask(_ agent: Spawned, _ command: String) throws -> String? {
        guard agent.isAlive else { return nil }
        do {
            let client = try clients[agent.pid] ?? QMPLine(path: workspace.file(name(agent)))
            clients[agent.pid] = client
            return try client.execute(command)
        } catch {
            clients[agent.pid] = nil
            // An agent that ends closes its sockets first.
            if agent.wait(seconds: 1) != nil { return nil }
            throw error
        }
    }

    private struct View: Equatable {
        var isAlive = false
        var state = ""
        var isRunning = false
        var hasReason = false
    }

    private func view(_ agent: Spawned) throws -> View {
        guard let migration = try ask(agent, "query-migrate"), let status = try ask(agent, "query-status") else {
            return View()
        }
        let printed = try Printed(migration)
        let state = (try? printed.value("return", "status")) ?? "none"
        return View(
            isAlive: true,
            state: state,
            isRunning: status.contains("\"running\":true") || status.contains("\"running\": true"),
            hasReason: migration.contains("error-desc")
        )
    }

    @discardableResult
    private func until<Value>(_ what: String, _ look: () throws -> Value?) throws -> Value {
        let deadline = MonotonicClock.now() + UInt64(TortureRound.deadline * 1e9)
        while MonotonicClock.now() < deadline {
            if let value = try look() { return value }
            usleep(3000)
        }
        throw TestFailure("\(what) does not come")
    }

    // MARK: The round

    /// Plays the round.
    ///
    /// - Throws: ``TestFailure`` with all that is known when anything is not as it must be.
    func play() throws -> Winner {
        do {
            return try judged()
        } catch {
            throw TestFailure("\(plan)\n\(error)\n\(account())")
        }
    }

    private func judged() throws -> Winner {
        try waitUntilReady()
        try beat()
        if !migrate.isAlive, source.isAlive, destination.isAlive, wasKilled(migrate) {
            say("migrate is run again")
            migrate = try startMigrate()
        }
        let winner = try until("an end") { try settled() }
        say("the end: \(winner.rawValue)")
        try check(winner)
        end()
        var deaths: [pid_t: UInt64] = [:]
        for agent in [source, destination] { deaths[agent.pid] = agent.deathTime }
        if let (one, other) = witness.overlap(deaths: deaths) {
            throw TestFailure("both sides ran at once: \(one) and \(other), deaths \(deaths)")
        }
        if let run = witness.returned(to: source.pid, from: destination.pid) {
            throw TestFailure("the source ran again after the workload had executed at the destination: \(run)")
        }
        return winner
    }

    private func waitUntilReady() throws {
        for (agent, word) in [(source, "\"running\":true"), (destination, "inmigrate")] {
            let path = workspace.file(name(agent))
            try until("the \(name(agent))'s socket") { access(path, F_OK) == 0 ? true : nil }
            try until("the \(name(agent))") {
                do {
                    let answer = try ask(agent, "query-status")?.replacingOccurrences(of: ": ", with: ":")
                    guard let answer else { throw TestFailure("the \(name(agent)) has ended") }
                    return answer.contains(word) ? true : nil
                } catch is SystemError {
                    return nil
                }
            }
        }
        _ = try until("a destination that listens") { try view(destination).state == "setup" ? true : nil }
        if plan.pushLimit > 0 {
            let limit = plan.pushLimit << 20
            let command = "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"max-postcopy-bandwidth\":\(limit)}}"
            _ = try ask(source, command)
        }
    }

    private func startMigrate() throws -> Spawned {
        let sockets = ["--source", workspace.file("source"), "--destination", workspace.file("destination")]
        return try Spawned(
            [Executable.pageferry, "migrate", "--json"] + sockets,
            log: workspace.file("migrate.log")
        )
    }

    private func wasKilled(_ process: Spawned) -> Bool { process.exitStatus == 128 + SIGKILL }

    /// Begins the migration, and lets happen what is planned; returns when the network is whole and nobody stopped.
    private func beat() throws {
        if plan.diskIsTaken {
            // The source holds it until it grants the start; whoever waits for it has it in between.
            try taker.take(workspace.file("disk"))
        }
        migrate = try startMigrate()
        let start = MonotonicClock.now()
        var moments: [(at: Int, deed: () throws -> Void)] = []
        for blow in plan.blows {
            moments.append((blow.at, { try self.strike(blow.fault) }))
            moments.append((blow.at + blow.lasts, { try self.mend(blow.fault) }))
        }
        for moment in moments.sorted(by: { $0.at < $1.at }) {
            let due = start + UInt64(moment.at) * 1_000_000
            let now = MonotonicClock.now()
            if due > now { usleep(UInt32((due - now) / 1000)) }
            try moment.deed()
        }
    }

    private func strike(_ fault: TorturePlan.Fault) throws {
        say("\(fault)")
        switch fault {
        case .killSource: source.end()
        case .killDestination: destination.end()
        case .killMigrate: migrate.end()
        case .stopSource:
            isStopped = true
            source.signal(SIGSTOP)
        case .stopDestination: destination.signal(SIGSTOP)
        case .stopMigrate: migrate.signal(SIGSTOP)
        case .cutLink: try hosts.cutLink()
        case .cutToSource: try hosts.loseWhat(hosts.destination)
        case .cutToDestination: try hosts.loseWhat(hosts.source)
        case .cancel:
            // Before a migration has begun there is nothing to cancel, and the answer is yes.
            let isUnderWay = try !isStopped && !["none", ""].contains(view(source).state)
            let cancel = try Spawned(
                [Executable.pageferry, "cancel", workspace.file("source")],
                log: workspace.file("cancel.log")
            )
            cancels.append((cancel, isUnderWay))
        }
    }

    private func mend(_ fault: TorturePlan.Fault) throws {
        switch fault {
        case .killSource, .killDestination, .killMigrate, .cancel: return
        case .stopSource:
            source.signal(SIGCONT)
            isStopped = false
        case .stopDestination: destination.signal(SIGCONT)
        case .stopMigrate: migrate.signal(SIGCONT)
        case .cutLink: try hosts.mendLink()
        case .cutToSource: try hosts.loseNothing(hosts.destination)
        case .cutToDestination: try hosts.loseNothing(hosts.source)
        }
        say("\(fault) is over")
    }

    // MARK: Judging

    private var quietSince: (at: UInt64, views: [View])?

    /// Whether the same was seen for a while.
    private func isQuiet(_ views: [View]) -> Bool {
        let now = MonotonicClock.now()
        if quietSince?.views != views { quietSince = (now, views) }
        return now - (quietSince?.at ?? now) > 300_000_000
    }

    /// Who has the workload, once that is settled; does what an operator would do where one is needed.
    private func settled() throws -> Winner? {
        let (here, there) = (try view(source), try view(destination))
        try tryResumeAgain(here)
        let isBack = ["none", "failed", "cancelled"].contains(here.state) && here.isRunning
        switch (here.isAlive, there.isAlive) {
        case (true, true):
            if here.state == "completed", there.state == "completed", there.isRunning { return .destination }
            if isBack, !there.isRunning, !migrate.isAlive { return .source }
            try tryStartAgain(here, there)
        case (true, false):
            if isBack { return .source }
            if here.state == "completed" { return .nobody }
            guard here.state == "postcopy-paused" else { return nil }
            if plan.usesLease { return try leaseIsTheDestinations() ? .nobody : nil }
            let hasRun = witness.operations(of: destination.pid) > 0
            say("the operator's word: \(hasRun ? "it has run there" : "it has not run there")")
            let word = "{\"execute\":\"pageferry-destination-gone\",\"arguments\":{\"has-run\":\(hasRun)}}"
            let answer = try ask(source, word)
            if hasRun { return .nobody }
            guard answer?.contains("\"return\"") == true else { say(answer ?? "no answer"); return nil }
        case (false, true):
            if there.state == "completed", there.isRunning { return .destination }
            guard isQuiet([here, there]) else { return nil }
            if there.isRunning { return try lacksPages() ? .destinationWithoutMemory : nil }
            // It knows that nothing starts, or why it waits; a start that hangs knows neither.
            return there.hasReason || ["setup", "failed", "cancelled"].contains(there.state) ? .nobody : nil
        case (false, false):
            return .nobody
        }
        return nil
    }

    /// A source that has its workload back and cannot resume it: the disk is freed, and it is tried again.
    private func tryResumeAgain(_ here: View) throws {
        guard ["failed", "cancelled"].contains(here.state), !here.isRunning, plan.diskIsTaken else { return }
        taker.free()
        say("cont at the source: \(try ask(source, "cont") ?? "no answer")")
    }

    /// A start that was refused, with a source that waits: the disk is freed, and it is tried again.
    private func tryStartAgain(_ here: View, _ there: View) throws {
        guard here.state == "postcopy-active", there.state == "postcopy-device", there.hasReason else { return }
        taker.free()
        say("cont at the destination")
        let answer = try ask(destination, "cont") ?? "no answer"
        say(answer)
        if answer.contains("broken") {
            let answer = try ask(source, "migrate_cancel") ?? "no answer"
            say("cancel at the source: \(answer)")
        }
    }

    /// Whether the destination has committed to start: the newest record is started and not the source's.
    private func leaseIsTheDestinations() throws -> Bool {
        let folder = workspace.file("lease/w")
        let newest = try FileManager.default.contentsOfDirectory(atPath: folder).compactMap { UInt64($0) }.max()
        guard let newest, let report = try ask(source, "pageferry-report") else { return false }
        let instance: String = try Printed(report).value("return", "instance")
        let record = try String(contentsOfFile: "\(folder)/\(newest)", encoding: .utf8)
        return record.contains("started yes") && !record.contains(instance)
    }

    /// Whether the workload executes at the destination, and pages are missing there.
    private func lacksPages() throws -> Bool {
        guard witness.operations(of: destination.pid) > 0, let answer = try ask(destination, "pageferry-report")
        else { return false }
        let report: [String: Any] = try Printed(answer).value("return", "destination")
        let pages = report["pages"] as? [String: NSNumber] ?? [:]
        let came = ["demand", "prefetched", "pushed", "zero"].reduce(0) { $0 + (pages[$1]?.intValue ?? 0) }
        return came < pages["total"]?.intValue ?? 0
    }

    private func check(_ winner: Winner) throws {
        switch winner {
        case .source: try checkRuns(source)
        case .destination: try checkRuns(destination)
        case .nobody: try checkRests()
        case .destinationWithoutMemory: break
        }
        try checkAnswers(winner)
    }

    private func checkRuns(_ agent: Spawned) throws {
        let before = witness.operations(of: agent.pid)
        try until("an operation at the \(name(agent))") { witness.operations(of: agent.pid) > before ? true : nil }
        let printed = try Printed(try ask(agent, "pageferry-verify") ?? "the agent is dead")
        let (checked, corrupt) = (
            try printed.number("return", "pages_checked"), try printed.number("return", "corrupt")
        )
        guard Int(checked) == plan.mebibytes * 256, corrupt == 0 else {
            throw TestFailure("\(checked) pages checked at the \(name(agent)), \(corrupt) corrupt")
        }
        let after = witness.operations(of: agent.pid)
        try until("an operation after the check") { witness.operations(of: agent.pid) > after ? true : nil }
    }

    private func checkRests() throws {
        for agent in [source, destination] where agent.isAlive {
            let before = witness.operations(of: agent.pid)
            usleep(50_000)
            guard witness.operations(of: agent.pid) == before else {
                throw TestFailure("the \(name(agent)) still runs")
            }
        }
    }

    /// Whether the commands that were not disturbed have said what is so.
    private func checkAnswers(_ winner: Winner) throws {
        let isWhole = source.isAlive && destination.isAlive && (winner == .source || winner == .destination)
        if isWhole {
            guard migrate.wait(seconds: TortureRound.deadline) != nil else { throw TestFailure("migrate does not end") }
            let text = try String(contentsOfFile: migrate.logPath, encoding: .utf8)
            let says = text.contains("\"result\":\"completed\"") || text.contains("\"result\" : \"completed\"")
            guard !says || winner == .destination else { throw TestFailure("migrate says completed:\n\(text)") }
        }
        guard !plan.blows.contains(where: { $0.fault == .killMigrate }) else { return }
        for (cancel, isJudged) in cancels where isJudged && cancel.wait(seconds: TortureRound.deadline) == 0 {
            guard winner == .source || winner == .nobody else {
                throw TestFailure("cancel said that the workload is back")
            }
        }
    }

    private func end() {
        taker.free()
        clients = [:]
        for process in [source, destination, migrate] + cancels.map(\.process) { process.end() }
    }

    /// All that is known, for whoever looks for the reason.
    private func account() -> String {
        var text = log.joined(separator: "\n")
        for agent in [source, destination] {
            text += "\n\(name(agent)) \(agent.pid): \((try? view(agent)).map { "\($0)" } ?? "no answer"), "
            text += agent.exitStatus.map { "exit \($0)" } ?? "alive"
            if let migration = try? ask(agent, "pageferry-report") { text += "\n\(migration)" }
        }
        for run in witness.runs { text += "\n\(run)" }
        end()
        for name in ["source", "destination", "migrate", "cancel"] {
            text += "\n--- \(name)\n"
            text += (try? String(contentsOfFile: workspace.file("\(name).log"), encoding: .utf8)) ?? "nothing"
        }
        return text
    }

    deinit {
        end()
    }
}

import Foundation
import LinuxSystem

/// The judgement of a migration: which side has the workload, and whether everything else is right.
extension TortureRound {
    /// Whether the agents have shown the same states for a while.
    private func isQuiet(_ views: [TortureAgent.View]) -> Bool {
        let now = MonotonicClock.now()
        if quietSince?.views != views { quietSince = (now, views) }
        return now - (quietSince?.at ?? now) > 300_000_000
    }

    /// Whether it is time for the next command of an operator.
    private func isOperatorsTurn() -> Bool {
        let now = MonotonicClock.now()
        guard now - lastWord > 1_500_000_000 else { return false }
        lastWord = now
        return true
    }

    /// The side that has the workload, once settled; plays the operator's commands where one is needed.
    func settled(_ move: TortureMove) throws -> Winner? {
        let (source, destination) = (move.source, move.destination)
        let there = try destination.view()
        if move.isUnfinished { return there.state == "completed" && there.isRunning ? .destination : nil }
        let here = try source.view()
        try tryResumeAgain(here, source)
        if isAwaited(source, here, destination) || isAwaited(destination, there, source) { return nil }
        // The source of this migration may show `completed` from the earlier migration by which the workload arrived.
        let isBack = ["none", "failed", "cancelled", "completed"].contains(here.state) && here.isRunning
        switch (here.isAlive, there.isAlive) {
        case (true, true):
            if here.state == "completed", there.state == "completed", there.isRunning { return .destination }
            let commands = [move.migrate] + move.words + move.cancels.map(\.process)
            if isBack, !there.isRunning, !commands.contains(where: \.isAlive) { return .source }
            try tryStartAgain(here, there, move)
            if here.state == "postcopy-paused", move.words.contains(where: { $0.logPath.contains("recover-") }),
                isOperatorsTurn()
            {
                // A recover that raced with another recovery may leave the destination at another address.
                say("recover again")
                try move.recover()
            }
        case (true, false):
            if isBack { return .source }
            if here.state == "completed" { return .nobody }
            guard here.state == "postcopy-paused" else { return nil }
            return try withoutDestination(move)
        case (false, true):
            if there.state == "completed", there.isRunning { return .destination }
            guard isQuiet([here, there]) else { return nil }
            if there.isRunning { return try lacksPages(destination) ? .destinationWithoutMemory : nil }
            // The destination is done, or reports why it waits; a start that hangs does neither.
            let isOver = ["setup", "failed", "cancelled", "completed"].contains(there.state)
            if there.hasReason || isOver { return .nobody }
            // The destination's permission to start is still valid, and a new start of the workload must win against
            // it.
            if plan.startsStopped, there.state == "postcopy-device" { return .nobody }
        case (false, false):
            return .nobody
        }
        return nil
    }

    /// Whether an agent was told to exit, and no migration can need it.
    private func isAwaited(_ agent: TortureAgent, _ view: TortureAgent.View, _ other: TortureAgent) -> Bool {
        guard agent.isLeaving, view.isAlive else { return false }
        // An agent that needs nothing more may still be needed by the other agent, if that one is alive.
        return other.isAlive && ["none", "setup", "completed", "failed", "cancelled"].contains(view.state)
    }

    /// Settles a migration whose destination is dead while the source waits.
    private func withoutDestination(_ move: TortureMove) throws -> Winner? {
        let source = move.source
        let hasRun: Bool
        if plan.usesLease {
            hasRun = try leaseIsOfAnother(than: source)
            guard hasRun else {
                if isOperatorsTurn() {
                    say("cancel at the source")
                    move.words.append(try move.command("cancel-again", ["cancel", source.socket]))
                }
                return nil
            }
        } else {
            hasRun = witness.operations(of: move.destination.pid) > 0
        }
        say("the operator's word: \(hasRun ? "it has run there" : "it has not run there")")
        let word = hasRun ? "--workload-is-lost" : "--destination-is-gone"
        let finished = try Executable.pageferry("cancel", source.socket, word)
        if hasRun, finished.status == 0 { return .nobody }
        if finished.status != 0 { say("\(finished)") }
        return nil
    }

    /// Frees the disk and tries again, if a source has taken its workload back and could not resume it.
    ///
    /// A foreign process or the destination may have held the disk's lock.
    private func tryResumeAgain(_ here: TortureAgent.View, _ source: TortureAgent) throws {
        guard ["failed", "cancelled"].contains(here.state), !here.isRunning, plan.devices.contains("disk:") else {
            return
        }
        taker.free()
        say("cont at the source: \(try source.ask("cont") ?? "no answer")")
    }

    /// Frees the disk and starts the workload, if the destination waits for `cont` or its start was refused.
    private func tryStartAgain(
        _ here: TortureAgent.View,
        _ there: TortureAgent.View,
        _ move: TortureMove
    ) throws {
        guard here.state == "postcopy-active", there.state == "postcopy-device" else { return }
        guard there.hasReason else {
            if plan.startsStopped { try move.cont() }
            return
        }
        taker.free()
        say("cont at the destination")
        let answer = try move.destination.ask("cont") ?? "no answer"
        say(answer)
        if answer.contains("broken") {
            let answer = try move.source.ask("migrate_cancel") ?? "no answer"
            say("cancel at the source: \(answer)")
        }
    }

    /// Whether the newest record is not the source's, so that the destination has committed to start.
    private func leaseIsOfAnother(than source: TortureAgent) throws -> Bool {
        let newest = try FileManager.default.contentsOfDirectory(atPath: lease).compactMap { UInt64($0) }.max()
        guard let newest else { return false }
        return try !String(contentsOfFile: "\(lease)/\(newest)", encoding: .utf8).contains(source.instance)
    }

    /// Whether the workload executes at the destination while pages are missing there.
    private func lacksPages(_ destination: TortureAgent) throws -> Bool {
        guard witness.operations(of: destination.pid) > 0, let (came, total) = try destination.arrival() else {
            return false
        }
        return came < total
    }

    // MARK: Checks

    func check(_ winner: Winner, of move: TortureMove) throws {
        switch winner {
        case .source: try checkRuns(move.source)
        case .destination: try checkRuns(move.destination)
        case .nobody: try checkRests([move.source, move.destination])
        case .destinationWithoutMemory: break
        }
        try checkAnswers(winner, of: move)
    }

    func checkRuns(_ agent: TortureAgent) throws {
        // An agent that was told to exit may have done so just now.
        guard agent.isAlive, !agent.isLeaving else { return }
        let before = witness.operations(of: agent.pid)
        try until("an operation at the \(agent.name)") { witness.operations(of: agent.pid) > before ? true : nil }
        let printed = try Printed(try agent.ask("pageferry-verify") ?? "the agent is dead")
        let (checked, corrupt) = (
            try printed.number("return", "pages_checked"), try printed.number("return", "corrupt")
        )
        guard Int(checked) == plan.mebibytes * 256, corrupt == 0 else {
            throw TestFailure("\(checked) pages checked at the \(agent.name), \(corrupt) corrupt")
        }
        let after = witness.operations(of: agent.pid)
        try until("an operation after the check") { witness.operations(of: agent.pid) > after ? true : nil }
    }

    private func checkRests(_ agents: [TortureAgent]) throws {
        for agent in agents where agent.isAlive {
            let before = witness.operations(of: agent.pid)
            usleep(50_000)
            guard witness.operations(of: agent.pid) == before else {
                throw TestFailure("the \(agent.name) still runs")
            }
        }
    }

    /// Checks that the commands that were not disturbed have reported the truth.
    private func checkAnswers(_ winner: Winner, of move: TortureMove) throws {
        guard !move.isUnfinished else { return }
        let isWhole =
            move.source.isAlive && move.destination.isAlive && (winner == .source || winner == .destination)
        if isWhole {
            guard move.migrate.wait(seconds: TortureRound.deadline) != nil else {
                throw TestFailure("migrate does not end")
            }
            let text = move.migrate.text
            let says = text.contains("\"result\":\"completed\"") || text.contains("\"result\" : \"completed\"")
            guard !says || winner == .destination else { throw TestFailure("migrate says completed:\n\(text)") }
        }
        // A source that has the workload back may have moved it again.
        let isMovedAgain = move.begins > 1 || move.words.contains { $0.logPath.contains("migrate-again") }
        guard !isMovedAgain else { return }
        for (cancel, isJudged) in move.cancels where isJudged && cancel.wait(seconds: TortureRound.deadline) == 0 {
            guard winner == .source || winner == .nobody else {
                throw TestFailure("cancel said that the workload is back")
            }
        }
    }

    /// Waits until the source learns that its destination is complete, whatever that destination does next.
    ///
    /// - Returns: whether the source had to reconnect for that.
    func checkCompleted(_ move: TortureMove) throws -> Bool {
        let (source, destination) = (move.source, move.destination)
        // As the destination of the second migration, the source has another state.
        guard source.isAlive, destination.isAlive, !source.isLeaving, !destination.isLeaving,
            !moves.dropFirst().contains(where: { $0.destination === source })
        else { return false }
        try until("a source that has completed") {
            guard source.isAlive, destination.isAlive else { return true }
            return try source.view().state == "completed" ? true : nil
        }
        return try move.isUnfinished && source.ask("pageferry-report")?.contains("postcopy-paused") ?? false
    }

    /// Checks that no two processes executed at once, and that none executed after others had had the workload.
    func checkWitness() throws {
        var deaths: [pid_t: UInt64] = [:]
        for agent in agents { deaths[agent.pid] = agent.process.deathTime }
        if let (one, other) = witness.overlap(deaths: deaths) {
            throw TestFailure("two ran at once: \(one) and \(other), deaths \(deaths)")
        }
        // Agents that start the workload anew come last, in the order of their starts.
        var chain = moves.prefix(1).map(\.source.pid) + moves.map(\.destination.pid)
        chain += agents.map(\.pid).filter { !chain.contains($0) }
        if let pid = witness.returned(in: chain) {
            throw TestFailure("\(pid) ran after others had had the workload: \(witness.order), not in \(chain)")
        }
    }
}

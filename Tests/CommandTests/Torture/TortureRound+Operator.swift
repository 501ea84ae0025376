import Foundation
import LinuxSystem

/// The end of a workload, and its new start by the commands that Pageferry prints.
extension TortureRound {
    /// Ends the agent that has the workload, and starts the workload again on the first host.
    ///
    /// With a run lease, the start needs no command of the operator after an orderly exit. After a kill it needs the
    /// command that it prints, and no other.
    ///
    /// - Returns: whether a command was needed.
    func startAnew(after holder: TortureAgent?) throws -> Bool {
        taker.free()
        let wasLeaving = holder?.isLeaving ?? false
        let isOrderly = try end(holder)
        if !plan.usesLease {
            // Without a lease only the operator can make sure that no other agent runs the workload.
            for agent in agents { agent.end() }
        } else {
            freeDiskLocks()
        }
        var successor = try startSource("anew")
        let isRefused = try !runs(successor)
        if isRefused {
            guard plan.usesLease, !isOrderly else {
                throw TestFailure("no start after an orderly end:\n\(successor.process.text)")
            }
            try takeOver(as: successor.process.text)
            successor = try startSource("anew-2")
            guard try runs(successor) else {
                throw TestFailure("no start after the lease was taken over:\n\(successor.process.text)")
            }
        } else if plan.usesLease, let holder, !wasLeaving, wasKilled(holder.process) {
            throw TestFailure("a start under the lease of an agent that was killed")
        }
        try checkRuns(successor)
        try checkPermissions()
        try checkRuns(successor)
        return isRefused
    }

    /// Makes an agent exit as planned.
    ///
    /// - Returns: whether the agent has exited in order and has released its lease.
    private func end(_ holder: TortureAgent?) throws -> Bool {
        guard let holder, holder.isAlive else { return false }
        // The agent was told to exit before, while a dead agent needed it, so that it may or may not release its lease.
        guard !holder.isLeaving else {
            holder.end()
            return false
        }
        say("\(plan.ending): \(holder.name)")
        holder.isLeaving = true
        try whileFrozen {
            switch plan.ending {
            case .quit: holder.tell("quit")
            case .terminate: holder.process.signal(SIGTERM)
            case .kill: holder.process.kill()
            }
        }
        guard plan.ending != .kill else {
            holder.end()
            return false
        }
        // If a peer is gone, the agent may wait for it for a long time, and this test does not wait as long.
        let isAlone = agents.contains { !$0.isAlive }
        var status = holder.process.wait(seconds: isAlone && plan.ending == .terminate ? 3 : TortureRound.deadline)
        if status == nil, plan.ending == .terminate {
            // The agent must report that a migration needs it, and that it exits when it is told again.
            guard holder.process.text.contains("signal it again to exit at once") else {
                throw TestFailure("the \(holder.name) neither ends nor says why")
            }
            say("told twice")
            holder.process.signal(SIGTERM)
            status = holder.process.wait(seconds: TortureRound.deadline)
            return false
        }
        guard status == 0 else {
            throw TestFailure("the \(holder.name) does not end in order: \(status.map { "\($0)" } ?? "it lives")")
        }
        return true
    }

    /// Kills a destination whose start is permitted, since it holds the lock of the disk.
    private func freeDiskLocks() {
        guard plan.devices.contains("disk:") else { return }
        for agent in agents { agent.end() }
    }

    /// Whether an agent's workload runs; false if the agent has exited instead.
    private func runs(_ agent: TortureAgent) throws -> Bool {
        try until("the workload anew") {
            if agent.process.exitStatus != nil { return false }
            do {
                return try agent.isReady("\"running\":true") ? true : nil
            } catch {
                // The agent has exited just now.
                guard agent.process.wait(seconds: 5) == nil else { return false }
                throw error
            }
        }
    }

    /// Runs the command that a refused start has printed, once the owners that it names are really gone.
    private func takeOver(as text: String) throws {
        guard let start = text.range(of: "pageferry lease ") else {
            throw TestFailure("the refused start prints no command:\n\(text)")
        }
        let words = text[start.lowerBound...].prefix { $0 != "\n" }.split(separator: " ").dropFirst().map(String.init)
        say("the operator's word: \(words.joined(separator: " "))")
        for agent in agents where words.contains(agent.instance) { agent.end() }
        let take = try Spawned([Executable.pageferry] + words, log: workspace.file("take.log"))
        defer { take.end() }
        try whileFrozen {}
        guard take.wait(seconds: TortureRound.deadline) == 0 else { throw TestFailure("\(words):\n\(take.text)") }
    }

    /// Runs a body while the store is frozen, if that is planned; writes then land with the thaw.
    private func whileFrozen(_ body: () throws -> Void) throws {
        guard let store, let time = plan.endFreezes else { return try body() }
        try store.freeze()
        defer { store.thaw() }
        try body()
        usleep(UInt32(time) * 1000)
    }

    /// Checks that a pending RUN starts nothing beside the workload that was started anew.
    private func checkPermissions() throws {
        guard plan.usesLease, plan.startsStopped else { return }
        for move in moves where move.destination.isAlive && !move.destination.isLeaving {
            let state = try move.destination.view().state
            guard state == "postcopy-device" else { continue }
            try move.cont()
            let status = move.conts.last?.wait(seconds: TortureRound.deadline)
            say("cont at the \(move.destination.name) beside the new start: \(status.map { "\($0)" } ?? "waits")")
            guard status != 0 else { throw TestFailure("cont succeeds at the \(move.destination.name)") }
        }
    }
}

import Identity
package import LinuxSystem
package import Telemetry

/// Advice for an operator whose command an agent has refused, based on the agents' reports.
///
/// The agent that refuses can give no such advice: it knows neither the other agent's control socket nor the command
/// line.
package enum Advice {
    /// Adds advice to a refusal.
    ///
    /// `advice` is called with the address and the report of the agent that refused.
    package static func added(
        to refusal: AgentFailure,
        of agent: AgentClient,
        _ advice: (SocketAddress, AgentReport) -> String?
    ) async -> AgentFailure {
        do {
            return refusal.advising(advice(agent.address, try await agent.report()))
        } catch {
            // Without a report there is no advice, and the refusal is returned as it is.
            return refusal
        }
    }

    /// Returns advice on a refused `migrate` between two agents; nil if their reports do not show the cause.
    package static func onMigrate(
        from source: (address: SocketAddress, report: AgentReport),
        to destination: (address: SocketAddress, report: AgentReport)
    ) -> String? {
        switch (source.report.holdsWorkload, destination.report.holdsWorkload) {
        case (false, true):
            return
                "the workload is at \(destination.address), so source and destination may be swapped: pageferry migrate "
                + "--source \(destination.address) --destination \(source.address)"
        case (true, true):
            return
                "\(source.address) and \(destination.address) have a workload each"
        case (true, false), (false, false): return nil
        }
    }

    /// Returns advice on a refused `cont`; nil if the report does not show the cause.
    package static func onCont(_ agent: SocketAddress, _ report: AgentReport) -> String? {
        let ends: Set<MigrationState> = [MigrationState.none, .completed, .failed, .cancelled]
        guard report.source != nil, let state = report.states.last, !ends.contains(state) else { return nil }
        let end = report.holdsWorkload ? ", or end it with pageferry cancel \(agent)" : ""
        return "the migration decides where the workload runs: follow it with pageferry status \(agent)" + end
    }

    /// Returns what an operator must know of a workload that `cont` has left running; nil if it needs no page.
    package static func afterCont(_ agent: SocketAddress, _ report: AgentReport) -> String? {
        guard report.source == nil, let arrived = report.destination, report.states.last == .postcopyPaused else {
            return nil
        }
        let missing = max(0, arrived.pages.total - arrived.pages.resident)
        let waits = arrived.waitingFaults > 0 ? "waits" : "stops when it needs one"
        let reason = report.error.map { " (\($0))" } ?? ""
        return "the workload at \(agent) has started, but its link to the source is broken\(reason): it lacks "
            + "\(counted(missing, "page")) and \(waits); pageferry recover --source SOURCE --destination \(agent) --uri "
            + "tcp:HOST:PORT, or if the source is gone for good: pageferry cancel --workload-is-lost \(agent)"
    }

    /// Returns the contradiction between two agents that both run the workload of one migration, and what to do; nil if
    /// they do not.
    ///
    /// - Parameters:
    ///   - source: the agent that the workload was to leave; its report must be younger than the other one, since a
    ///     workload never comes back within the migration in which it has run at the destination.
    ///   - destination: the agent that the workload was to reach.
    package static func onTwoRunners(
        _ source: (address: SocketAddress, report: AgentReport),
        _ destination: (address: SocketAddress, report: AgentReport)
    ) -> String? {
        guard source.report.runsHere, destination.report.runsHere, let migration = source.report.migration,
            migration == destination.report.migration
        else { return nil }
        let there =
            destination.report.states.last == .completed
            ? "the agent at \(destination.address) by SIGTERM"
            : "the one at \(destination.address) by pageferry cancel --workload-is-lost \(destination.address)"
        return
            "\(source.address) and \(destination.address) both run the workload \(source.report.workload) of one migration; "
            + "stop one of the two now: the agent at \(source.address) by SIGTERM, or \(there)"
    }

    /// Returns advice on a recovery that was begun and has failed; nil if the migration is not paused any more.
    package static func onLostRecovery(_ agent: SocketAddress, _ report: AgentReport) -> String? {
        guard report.states.last == .postcopyPaused else { return nil }
        return "try again when the destination answers; if it was restarted or is gone for good: "
            + ifDestinationIsGone(agent, report)
    }

    /// Returns what an operator states at a paused source whose destination is gone for good.
    package static func ifDestinationIsGone(_ source: SocketAddress, _ report: AgentReport?) -> String {
        let lost = "pageferry cancel --workload-is-lost \(source)"
        // The command that cannot be undone comes last.
        return report?.source?.resumesOnWord == true
            ? "pageferry cancel --destination-is-gone \(source) if the workload never ran there, where a process may "
                + "outlive its agent; \(lost) if it did"
            : lost
    }

    /// Returns advice on a refused `recover`; nil if the report does not show the cause.
    package static func onRecover(_ agent: SocketAddress, _ report: AgentReport) -> String? {
        if report.source == nil, report.destination != nil, report.states.last == .postcopyPaused {
            return
                "\(agent) is the destination: pageferry recover --source SOURCE --destination \(agent) --uri tcp:HOST:PORT"
        }
        return nil
    }

    /// Returns advice on a `recover` that the destination has refused; nil if the reports do not show the cause.
    package static func onRecover(
        from source: (address: SocketAddress, report: AgentReport),
        to destination: (address: SocketAddress, report: AgentReport)
    ) -> String? {
        if source.report.source == nil, destination.report.source != nil {
            return
                "source and destination may be swapped: pageferry recover --source \(destination.address) --destination "
                + "\(source.address) --uri tcp:HOST:PORT"
        }
        if source.report.states.last == .postcopyPaused, destination.report.migration != source.report.migration {
            return
                "\(destination.address) does not know the migration that is paused at \(source.address); if the destination "
                + "was restarted or is gone for good: \(ifDestinationIsGone(source.address, source.report))"
        }
        return onRecover(source.address, source.report)
    }
}

public import LinuxSystem
import QMP
public import Telemetry

/// Moves a workload from one agent to another, as a client of both.
public struct Migration: Sendable {
    /// The agent that has the workload.
    public let source: AgentClient
    /// The agent that is to have it.
    public let destination: AgentClient

    /// Makes a migration between two agents.
    public init(source: AgentClient, destination: AgentClient) {
        self.source = source
        self.destination = destination
    }

    /// What both sides know; a side that has ended is nil.
    public struct Sides: Sendable {
        /// The source's part.
        public var source: AgentReport?
        /// The destination's part.
        public var destination: AgentReport?
        /// The sides that do not answer.
        public private(set) var gone: Set<Report.Side> = []

        /// What both have answered, if they have.
        public init(source: AgentReport? = nil, destination: AgentReport? = nil) {
            self.source = source
            self.destination = destination
            if source == nil { gone.insert(.source) }
            if destination == nil { gone.insert(.destination) }
        }

        /// Whether the migration has ended, well or badly, as far as either side can tell.
        public var hasEnded: Bool {
            let ends = ["completed", "failed", "cancelled", "postcopy-paused"]
            let here = source?.states.last.map(ends.contains)
            let there = destination?.states.last.map(ends.contains)
            // A source that failed has the workload back; its destination may wait for ever.
            if source?.states.last == "failed" || source?.states.last == "cancelled" { return true }
            return (here ?? true) && (there ?? true)
        }

        /// Adds what was known of a side that has ended meanwhile. Nobody says any more that something runs there.
        func remembering(_ earlier: Sides) -> Sides {
            func last(_ now: AgentReport?, _ before: AgentReport?) -> AgentReport? {
                guard now == nil, var gone = before else { return now }
                gone.runsHere = false
                return gone
            }
            var sides = Sides(source: last(source, earlier.source), destination: last(destination, earlier.destination))
            sides.gone = gone
            return sides
        }

        /// Whether a side that can be asked waits for the other.
        var isPaused: Bool {
            source?.states.last == "postcopy-paused" || destination?.states.last == "postcopy-paused"
        }
    }

    /// How long a pause may last before the migration counts as ended by it.
    private static let patience = Duration.seconds(3)

    /// Begins the migration and the switchover; returns when both are under way, or the migration has failed already,
    /// which its end then tells with the reason.
    ///
    /// A migration between the two that somebody began before, and may not have lived to see through, is taken up where
    /// it stands.
    ///
    /// - Parameter uri: where the destination is to be reached; nil for where it listens, or any port of its loopback.
    public func begin(at uri: SocketAddress? = nil) async throws {
        switch try await progress() {
        case .switchedOver: return
        case .begun: break
        case .notBegun: try await migrate(at: uri)
        }
        do {
            try await source.execute("migrate-start-postcopy")
        } catch let refusal as AgentFailure {
            // Another client, or the migration's end, came first.
            guard case .switchedOver = try await progress() else {
                let ends = ["failed", "cancelled"]
                guard let last = try? await source.report().states.last, ends.contains(last) else { throw refusal }
                return
            }
        }
    }

    /// How far a migration between the two has come.
    private enum Progress {
        case notBegun, begun, switchedOver
    }

    private func progress() async throws -> Progress {
        let here = try await source.report()
        guard here.source != nil, let state = here.states.last, !["none", "failed", "cancelled"].contains(state) else {
            return .notBegun
        }
        let there = try await destination.report()
        if state == "setup" || state == "active" {
            // The destination may not have heard of it yet.
            guard there.migration == nil || there.migration == here.migration else { throw elsewhere() }
            return .begun
        }
        guard there.migration == here.migration else { throw elsewhere() }
        return .switchedOver
    }

    private func elsewhere() -> AgentFailure {
        let reason = "the workload moves, or has moved, to another destination than \(destination.address)"
        return AgentFailure(agent: source.address, command: "migrate", reason: reason)
    }

    private func migrate(at uri: SocketAddress?) async throws {
        var listening = try await destination.listeningAddress()
        if listening == nil {
            let wanted = uri?.description ?? "tcp:127.0.0.1:0"
            try await destination.execute("migrate-incoming", ["uri": .string(wanted), "exit-on-error": false])
            listening = try await destination.listeningAddress()
        }
        guard let address = uri?.description ?? listening else {
            throw AgentFailure(
                agent: destination.address,
                command: "query-migrate",
                reason: "the destination does not say where it waits; tell it by --uri"
            )
        }
        try await source.execute("migrate", ["uri": .string(address)])
    }

    /// What both sides know now.
    public func sides() async -> Sides {
        // A side that does not answer has ended, which is an answer too.
        Sides(source: try? await source.report(), destination: try? await destination.report())
    }

    /// Waits until the migration has ended on both sides, or one of them is gone. Takes all further events.
    public func end() async throws -> Sides {
        let (changes, change) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        return try await withThrowingTaskGroup(of: Void.self) { group in
            for agent in [source, destination] {
                group.addTask {
                    for await _ in agent.events { change.yield() }
                    change.yield()
                }
            }
            defer { group.cancelAll() }
            change.yield()
            var seen = Sides()
            for await _ in changes {
                var sides = await sides()
                if sides.hasEnded, sides.isPaused {
                    // A side that lost the other may decide by its lease, or find it again.
                    try await Task.sleep(for: Migration.patience)
                    sides = await self.sides()
                }
                if sides.hasEnded { return sides.remembering(seen) }
                seen = sides.remembering(seen)
            }
            throw CancellationError()
        }
    }
}

extension Migration.Sides {
    /// The agent that has the workload with all of its pages, if one that can be asked does. Where pages are missing and
    /// no longer come, the workload can neither be stopped nor checked.
    public func holder(of migration: Migration) -> AgentClient? {
        // One that has ended by itself after it came is checked too.
        if destination?.holdsWorkload == true, destination?.states.last == "completed" { return migration.destination }
        if source?.runsHere == true { return migration.source }
        return nil
    }
}

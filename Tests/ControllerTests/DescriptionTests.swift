import OwnThread
import QMP
import Synchronization
import Testing

@testable import Controller

/// The description in `query-qmp-schema`, compared with the agent's behaviour.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct DescriptionTests {
    /// Sends every query, and compares each answer with its description.
    private func askAll(_ host: Host) async throws {
        for command in host.agent.commands where command.name.hasPrefix("query-") {
            try await host.command(command.name)
        }
    }

    @Test func `every answer to a query fits its description, before, during and after a migration`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let hosts = [ferrying.source, ferrying.destination]
        for host in hosts { try await askAll(host) }
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "active")
        for host in hosts { try await askAll(host) }
        try await ferrying.source.command("migrate-start-postcopy")
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        for host in hosts { try await askAll(host) }
        ferrying.relay.end()
        let failing = try await Ferrying(maxPages: 1)
        defer { failing.end() }
        try await failing.source.command("migrate", ["uri": failing.uri])
        try await failing.source.wait(for: "failed")
        for host in [failing.source, failing.destination] { try await askAll(host) }
    }

    @Test func `every event fits its description`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let told = Mutex<[(String, [String: JSONValue])]>([])
        for host in [ferrying.source, ferrying.destination] {
            host.agent.setEventSink { event in told.withLock { $0.append((event.name, event.data)) } }
        }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        try await ferrying.destination.command("quit")
        let events = told.withLock(\.self)
        #expect(Set(events.map(\.0)) == Set(ferrying.source.agent.events.map(\.name)))
        for (name, data) in events {
            let description = try #require(ferrying.source.agent.events.first { $0.name == name })
            #expect(QMPType.object(description.data).includes(.object(data)), "\(name) \(data)")
        }
    }

    @Test func `exactly the known settings are described`() throws {
        let commands = AgentCommand.descriptions
        let set = try #require(commands.first { $0.name == "migrate-set-parameters" })
        #expect(set.arguments.map(\.name).sorted() == MigrationParameter.allCases.map(\.rawValue).sorted())
        #expect(set.arguments.contains(.optional("tls-creds", .either([.string, .null]))))
        #expect(set.arguments.contains(.optional("mode", .words(["normal"]))))
        #expect(set.arguments.contains(.optional("announce-rounds", .integer)))
    }

    @Test func `the threads of a migration are reported by name and number`() async throws {
        let ferrying = try await Ferrying(pushes: false)
        defer { ferrying.end() }
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "active")
        // Threads start and exit during the migration.
        func expectThreads(_ names: String..., of host: Host) async throws {
            let areTold = try await soon {
                let threads = try await host.command("query-migrationthreads").array ?? []
                #expect(Set(threads.compactMap { $0["thread-id"]?.integer }).count == threads.count)
                return Set(names).isSubset(of: threads.compactMap { $0["name"]?.string })
            }
            #expect(areTold, "\(names)")
        }
        try await expectThreads("control-read", "control-pulse", "urgent-serve", of: ferrying.source)
        try await ferrying.source.command("migrate-start-postcopy")
        try await expectThreads("control-read", "faults", "bulk-place", of: ferrying.destination)
    }
}

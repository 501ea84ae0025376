import OwnThread
import QMP
import Testing

@testable import Controller

@Suite("The reason why a migration has ended", .ownThread, .timeLimit(.minutes(1)))
struct EndReasonTests {
    @Test func `names the operator of the destination who has cancelled, on both sides`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "active")
        try await ferrying.destination.wait(for: "active")
        #expect(await ferrying.destination.refusal("migrate_cancel") == nil)
        try await ferrying.source.wait(for: "failed")
        #expect(
            try await ferrying.source.failure
                == "the destination reports: its operator has cancelled the migration"
        )
        try await ferrying.destination.wait(forLine: "the operator has cancelled the incoming migration")
        #expect(try await ferrying.destination.failure == "the migration was cancelled")
    }

    @Test func `is the peer's own, without a word of a broken link`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        ferrying.workload.clock.behave { $0.save = .fails }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "failed")
        try await ferrying.destination.wait(for: "failed")
        let told = try await ferrying.destination.failure ?? ""
        // The end of a lane may arrive before the reason.
        #expect(
            told == "the source reports: cannot save device clock: cannot save today"
                || told.contains("closed the connection"),
            "\(told)"
        )
    }

    @Test func `is that of the connection which could not be made`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("migrate", ["uri": "tcp:no.such.host.invalid:7000"])
        try await ferrying.source.wait(for: "failed")
        let unknown = try await ferrying.source.failure ?? ""
        #expect(unknown.hasPrefix("cannot resolve the host 'no.such.host.invalid': "), "\(unknown)")
        // The resolver has one reason, and the kernel has none.
        #expect(!unknown.contains("No such device"), "\(unknown)")
        try await ferrying.source.command("migrate", ["uri": "tcp:127.0.0.1:1"])
        #expect(try await soon { try await ferrying.source.failure?.hasPrefix("cannot connect to tcp:") == true })
    }

    @Test func `is the operator's pause, on both sides`() async throws {
        let ferrying = try await Ferrying(pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-active")
        #expect(try await soon { try await ferrying.source.command("query-migrate")["downtime"] != nil })
        #expect(await ferrying.source.refusal("migrate-pause") == nil)
        try await ferrying.source.wait(for: "postcopy-paused")
        #expect(
            try await ferrying.source.failure
                == "the operator has paused the migration; the workload has started on the destination"
        )
        try await ferrying.destination.wait(for: "postcopy-paused")
        let told = try await ferrying.destination.command("pageferry-report")["error"]?.string
        #expect(
            told == "the source reports: the operator has paused the migration"
                || told?.contains("closed the connection") == true,
            "\(told ?? "")"
        )
    }
}

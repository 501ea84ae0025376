import LinuxSystem
import OwnThread
import QMP
import Testing

@testable import Controller

/// The word of an operator that a destination is gone, at a source that tries to reach that destination again.
@Suite("The word that a destination is gone", .ownThread, .timeLimit(.minutes(1)))
final class GoneWordTests {
    /// A process that is stopped: its kernel accepts connections.
    private let stopped: Listener

    init() throws {
        stopped = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
    }

    /// A source in postcopy-recover-setup, whose destination does not answer.
    private func hung(hasStarted: Bool) async throws -> Ferrying {
        let ferrying = try await Ferrying(startsStopped: !hasStarted, recovering: .seconds(60), pushes: false)
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: hasStarted ? "postcopy-active" : "postcopy-device")
        if hasStarted {
            #expect(try await soon { try await ferrying.source.command("query-migrate")["downtime"] != nil })
        }
        ferrying.relay.end()
        let resumes: [String: JSONValue] = ["uri": .string(stopped.address.description), "resume": true]
        // The source itself may be about to redial.
        #expect(try await soon { await ferrying.source.refusal("migrate", resumes) == nil })
        try await ferrying.source.wait(for: "postcopy-recover-setup")
        return ferrying
    }

    @Test func `takes the workload back while the process of the destination hangs`() async throws {
        let ferrying = try await hung(hasStarted: false)
        defer { ferrying.end() }
        #expect(await ferrying.source.refusal("pageferry-destination-gone", ["has-run": false]) == nil)
        try await ferrying.source.wait(untilRunning: true)
        #expect(try await ferrying.source.command("query-migrate")["status"] == "failed")
    }

    @Test func `ends the migration of a workload that has run there, while that process hangs`() async throws {
        let ferrying = try await hung(hasStarted: true)
        defer { ferrying.end() }
        let wrong = await ferrying.source.refusal("pageferry-destination-gone", ["has-run": false])
        #expect(wrong?.contains("the workload has run on the destination") == true, "\(wrong ?? "")")
        #expect(await ferrying.source.refusal("pageferry-destination-gone", ["has-run": true]) == nil)
        #expect(try await ferrying.source.command("query-migrate")["status"] == "failed")
        #expect(try await ferrying.source.isRunning == false)
    }

    @Test func `is named by a cancel that the hung destination does not decide`() async throws {
        let ferrying = try await hung(hasStarted: false)
        defer { ferrying.end() }
        let refusal = await ferrying.source.refusal("migrate_cancel")
        #expect(refusal?.contains("pageferry-destination-gone with has-run false") == true, "\(refusal ?? "")")
    }
}

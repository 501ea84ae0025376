import LinuxSystem
import OwnThread
import QMP
import Testing

@testable import Controller

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct SettingsTests {
    private func setting(_ capability: JSONValue, _ state: JSONValue) -> [String: JSONValue] {
        ["capabilities": [["capability": capability, "state": state]]]
    }

    @Test func `capabilities that are so are taken, others are refused by name`() async throws {
        let host = Host()
        for capability in try await host.command("query-migrate-capabilities").array ?? [] {
            guard let name = capability["capability"], let state = capability["state"] else {
                Issue.record("of another shape: \(capability)")
                continue
            }
            if name == "release-ram" { continue }
            #expect(await host.refusal("migrate-set-capabilities", setting(name, state)) == nil)
            let opposite = JSONValue.boolean(state == false)
            let refusal = await host.refusal("migrate-set-capabilities", setting(name, opposite))
            #expect(refusal?.hasPrefix("Capability '\(name.string ?? "")' is ") == true)
        }
        let all = try await host.command("query-migrate-capabilities").array ?? []
        #expect(all.contains(["capability": "postcopy-ram", "state": true]))
        #expect(all.contains(["capability": "multifd", "state": false]))
    }

    @Test func `release-ram can be chosen, together with what is so`() async throws {
        let host = Host()
        let state = { try await host.command("query-migrate-capabilities").array ?? [] }
        #expect(try await state().contains(["capability": "release-ram", "state": false]))
        let both: JSONValue = [
            ["capability": "release-ram", "state": true], ["capability": "postcopy-ram", "state": true],
        ]
        try await host.command("migrate-set-capabilities", ["capabilities": both])
        #expect(try await state().contains(["capability": "release-ram", "state": true]))
        let refused: JSONValue = [
            ["capability": "release-ram", "state": false], ["capability": "multifd", "state": true],
        ]
        #expect(await host.refusal("migrate-set-capabilities", ["capabilities": refused]) != nil)
        #expect(try await state().contains(["capability": "release-ram", "state": true]))
    }

    @Test func `capabilities of another shape are refused as QEMU does`() async throws {
        let host = Host()
        let refusals: [([String: JSONValue], String)] = [
            ([:], "Parameter 'capabilities' is missing"),
            (["capabilities": "all"], "Invalid parameter type for 'capabilities', expected: array"),
            (["capabilities": [7]], "Invalid parameter type for 'capabilities[0]', expected: object"),
            (["capabilities": [[:]]], "Parameter 'capability' is missing"),
            (setting("sing", true), "Parameter 'capability' does not accept value 'sing'"),
            (setting("events", "yes"), "Invalid parameter type for 'state', expected: boolean"),
        ]
        for (arguments, refusal) in refusals {
            #expect(await host.refusal("migrate-set-capabilities", arguments) == refusal)
        }
    }

    @Test func `a parameter that cannot be kept is refused by name, and nothing is set`() async throws {
        let host = Host()
        let both: [String: JSONValue] = ["max-postcopy-bandwidth": 9, "xbzrle-cache-size": 9]
        #expect(
            await host.refusal("migrate-set-parameters", both) == "Parameter 'xbzrle-cache-size' is not supported"
        )
        let atFirst: JSONValue = ["max-postcopy-bandwidth": 0, "max-bandwidth": 134_217_728, "downtime-limit": 300]
        #expect(try await host.command("query-migrate-parameters") == atFirst)
        #expect(
            await host.refusal("migrate-set-parameters", ["downtime-limit": 2_000_001])
                == "Parameter 'downtime-limit' expects an integer in the range of 0 to 2000000 milliseconds"
        )
        #expect(await host.refusal("migrate-set-parameters", ["max-postcopy-bandwidth": -1]) != nil)
        #expect(
            await host.refusal("migrate-set-parameters", ["max-postcopy-bandwidth": true])
                == "Invalid parameter type for 'max-postcopy-bandwidth', expected: integer"
        )
        try await host.command("migrate-set-parameters", ["max-postcopy-bandwidth": 9, "downtime-limit": 50])
        let then: JSONValue = ["max-postcopy-bandwidth": 9, "max-bandwidth": 134_217_728, "downtime-limit": 50]
        #expect(try await host.command("query-migrate-parameters") == then)
    }

    @Test func `max-postcopy-bandwidth holds back what nobody waits for, until it is lifted`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 4096])
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-active")
        let sent = { try await ferrying.source.command("query-migrate")["ram"]?["postcopy-bytes"]?.integer ?? 0 }
        // The workload may ask for each of its pages meanwhile; most of them are there only when the limit is gone.
        #expect(try await sent() < 500 * 4096)
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 0])
        try await ferrying.source.wait(for: "completed")
        #expect(try await sent() >= 480 * 4096)
    }

    @Test func `a push that is held back does not hold up the end of its link`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 1])
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-active")
        ferrying.relay.end()
        try await ferrying.source.wait(for: "postcopy-paused")
    }

    @Test func `query-migrate tells what faults cost, in QEMU's fields`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        let source = try await ferrying.source.command("query-migrate")
        #expect(source["downtime"]?.integer ?? -1 >= 0)
        let ram = try #require(source["ram"])
        #expect(ram["total"] == JSONValue(640 * 4096))
        #expect(ram["remaining"] == 0)
        #expect(ram["duplicate"] == 160)
        #expect(ram["page-size"] == 4096)
        let destination = try await ferrying.destination.command("query-migrate")
        let counts = destination["postcopy-latency-dist"]?.array ?? []
        #expect(counts.count == 32)
        let latency = destination["postcopy-latency"]
        #expect((latency?.integer ?? 0 > 0) == counts.contains { $0 != 0 })
        // This workload does not say which threads are its own.
        #expect(destination["postcopy-vcpu-latency"] == [])
        #expect(destination["postcopy-non-vcpu-latency"] == latency)
        #expect(destination["postcopy-blocktime"] == nil)
    }

    @Test func `an address is taken as a uri or as channels`() throws {
        func address(_ arguments: [String: JSONValue]) throws -> SocketAddress {
            try QMPCommand(name: "migrate", arguments: arguments).migrationAddress()
        }
        func channel(_ address: JSONValue) -> [String: JSONValue] {
            ["channels": [["channel-type": "main", "addr": address]]]
        }
        #expect(try address(["uri": "tcp:host:1"]) == .tcp(host: "host", port: 1))
        let inet: JSONValue = ["transport": "socket", "type": "inet", "host": "::1", "port": "4444"]
        #expect(try address(channel(inet)) == .tcp(host: "::1", port: 4444))
        let unix: JSONValue = ["transport": "socket", "type": "unix", "path": "/run/m"]
        #expect(try address(channel(unix)) == .unix(path: "/run/m"))
        for arguments: [String: JSONValue] in [
            [:], ["channels": []], ["channels": 1], channel(["transport": "exec"]),
            channel(["transport": "socket", "type": "vsock"]), ["uri": "a:1", "channels": []],
        ] {
            #expect(throws: QMPError.self) { try address(arguments) }
        }
    }
}

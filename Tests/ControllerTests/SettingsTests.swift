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

    @Test func `every listed capability can be turned on and off, and reports its state`() async throws {
        let host = Host()
        let listed = try await host.command("query-migrate-capabilities").array ?? []
        #expect(listed.contains(["capability": "postcopy-ram", "state": true]))
        #expect(listed.contains(["capability": "events", "state": true]))
        for name in listed.compactMap({ $0["capability"] }) {
            for state: JSONValue in [false, true] {
                #expect(await host.refusal("migrate-set-capabilities", setting(name, state)) == nil)
                let now = try await host.command("query-migrate-capabilities").array ?? []
                #expect(now.contains(["capability": name, "state": state]), "\(name)")
            }
        }
    }

    @Test func `a capability that is not listed may be turned off`() async throws {
        let host = Host()
        let listed = try await host.command("query-migrate-capabilities").array?.compactMap { $0["capability"] } ?? []
        let names: [JSONValue] = [
            "auto-converge", "background-snapshot", "dirty-bitmaps", "dirty-limit", "late-block-activate", "mapped-ram",
            "multifd", "postcopy-blocktime", "postcopy-preempt", "rdma-pin-all", "switchover-ack", "validate-uuid",
            "xbzrle", "x-colo", "x-ignore-shared", "zero-blocks", "zero-copy-send",
        ]
        for name in names {
            #expect(!listed.contains(name))
            #expect(await host.refusal("migrate-set-capabilities", setting(name, false)) == nil)
        }
        #expect(try await host.command("query-migrate-capabilities").array?.count == listed.count)
    }

    @Test func `an unsupported capability is refused by name, with advice`() async throws {
        let host = Host()
        for name: JSONValue in ["multifd", "xbzrle", "mapped-ram", "dirty-bitmaps", "validate-uuid", "zero-copy-send"] {
            let refusal = await host.refusal("migrate-set-capabilities", setting(name, true)) ?? ""
            #expect(refusal.hasPrefix("Capability '\(name.string ?? "")' is not supported: "))
            #expect(refusal.hasSuffix("; leave it off"))
        }
        // Capabilities that every migration here has may be turned on.
        for name: JSONValue in ["postcopy-preempt", "postcopy-blocktime", "late-block-activate"] {
            #expect(await host.refusal("migrate-set-capabilities", setting(name, true)) == nil)
        }
    }

    @Test func `with postcopy-ram off neither side begins a migration`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("migrate-set-capabilities", setting("postcopy-ram", false))
        let refusal = await ferrying.source.refusal("migrate", ["uri": ferrying.uri])
        #expect(refusal?.contains("set postcopy-ram to true with migrate-set-capabilities") == true)
        #expect(try await ferrying.source.command("query-migrate") == [:])
        let waiting = Host(landing: TestLanding(journal: ferrying.journal))
        try await waiting.command("migrate-set-capabilities", setting("postcopy-ram", false))
        #expect(await waiting.refusal("migrate-incoming", ["uri": "tcp:127.0.0.1:0"]) == refusal)
        try await ferrying.source.command("migrate-set-capabilities", setting("postcopy-ram", true))
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
    }

    @Test func `with events off, states send no events, and the workload's stop and start still do`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        for host in [ferrying.source, ferrying.destination] {
            try await host.command("migrate-set-capabilities", setting("events", false))
        }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        #expect(ferrying.source.events == ["STOP"])
        // The event of the listening state was sent before.
        #expect(ferrying.destination.events == ["setup", "RESUME"])
    }

    @Test func `release-ram can be set together with capabilities that keep their value`() async throws {
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

    @Test func `malformed capabilities are refused as in QEMU`() async throws {
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

    @Test func `a parameter out of its range is refused by name, and no parameter changes`() async throws {
        let host = Host()
        let atFirst = try await host.command("query-migrate-parameters")
        let refusals: [([String: JSONValue], String)] = [
            (
                ["max-postcopy-bandwidth": 9, "xbzrle-cache-size": 9],
                "Parameter 'xbzrle-cache-size' expects a power of two that is no less than 4096"
            ),
            (
                ["downtime-limit": 2_000_001],
                "Parameter 'downtime-limit' expects an integer in the range of 0 to 2000000 milliseconds"
            ),
            (
                ["max-postcopy-bandwidth": true],
                "Invalid parameter type for 'max-postcopy-bandwidth', expected: integer"
            ),
            (["multifd-channels": 65], "Parameter 'multifd-channels' expects an integer in the range of 0 to 64"),
            (["multifd-compression": "zlib"], "Parameter 'multifd-compression' does not accept value 'zlib'"),
            (["cpu-throttle-tailslow": 1], "Invalid parameter type for 'cpu-throttle-tailslow', expected: boolean"),
            (["compress-level": 1], "Parameter 'compress-level' is unexpected"),
        ]
        for (arguments, refusal) in refusals {
            #expect(await host.refusal("migrate-set-parameters", arguments) == refusal)
        }
        #expect(await host.refusal("migrate-set-parameters", ["max-postcopy-bandwidth": -1]) != nil)
        #expect(try await host.command("query-migrate-parameters") == atFirst)
    }

    @Test func `parameters without effect are accepted, and every reported parameter can be set`() async throws {
        let host = Host()
        let atFirst = try #require(try await host.command("query-migrate-parameters").object)
        #expect(atFirst["max-postcopy-bandwidth"] == 0)
        #expect(atFirst["max-bandwidth"] == 134_217_728)
        #expect(atFirst["downtime-limit"] == 300)
        // The number of connections depends on the link until it is set.
        #expect(atFirst["multifd-channels"] == 0)
        #expect(atFirst["mode"] == "normal")
        // A client sets these parameters, and sets them back when the migration has ended.
        let wanted: [String: JSONValue] = [
            "max-postcopy-bandwidth": 9, "max-bandwidth": 9_223_372_036_853_727_232, "downtime-limit": 50,
            "multifd-channels": 8, "multifd-compression": "zstd", "xbzrle-cache-size": 8192,
            "cpu-throttle-initial": 99, "cpu-throttle-tailslow": true,
        ]
        try await host.command("migrate-set-parameters", wanted)
        let then = try #require(try await host.command("query-migrate-parameters").object)
        #expect(then == atFirst.merging(wanted) { _, new in new })
        try await host.command("migrate-set-parameters", atFirst)
        #expect(try await host.command("query-migrate-parameters").object == atFirst)
    }

    @Test func `a parameter of an unsupported feature is accepted only with its default value`()
        async throws
    {
        let host = Host()
        let atFirst = try await host.command("query-migrate-parameters")
        let nothing: [String: JSONValue] = [
            "tls-creds": "", "tls-hostname": nil, "tls-authz": "", "mode": "normal", "zero-page-detection": "legacy",
            "block-bitmap-mapping": [], "announce-initial": 50, "announce-max": 550, "announce-rounds": 5,
            "announce-step": 100, "cpr-exec-command": [],
        ]
        try await host.command("migrate-set-parameters", nothing)
        #expect(try await host.command("query-migrate-parameters") == atFirst)
        let something: [String: JSONValue] = [
            "tls-creds": "tls0", "tls-hostname": "b", "tls-authz": "z", "mode": "cpr-reboot",
            "zero-page-detection": "none", "block-bitmap-mapping": [[:]], "announce-rounds": 0,
            "cpr-exec-command": ["qemu"],
        ]
        for (name, value) in something {
            let refusal = await host.refusal("migrate-set-parameters", [name: value]) ?? ""
            #expect(refusal.hasPrefix("Parameter '\(name)' is not supported: "), "\(refusal)")
            #expect(refusal.contains("; "), "\(refusal)")
        }
    }

    @Test func `capabilities are refused while a workload leaves, as they would not hold for that`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "active")
        let refusal = await ferrying.source.refusal("migrate-set-capabilities", setting("release-ram", true))
        #expect(refusal?.hasPrefix("There's a migration process in progress: it is active, ") == true)
        let listed = try await ferrying.source.command("query-migrate-capabilities").array ?? []
        #expect(listed.contains(["capability": "release-ram", "state": false]))
        // Capabilities that are set at the destination apply to migrations from there.
        try await ferrying.destination.command("migrate-set-capabilities", setting("release-ram", true))
        try await ferrying.source.command("migrate_cancel")
        try await ferrying.source.command("migrate-set-capabilities", setting("release-ram", true))
    }

    @Test func `query-migrate at the destination tells what has arrived`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 4096])
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-active")
        let active = try #require(try await ferrying.destination.command("query-migrate")["ram"])
        #expect(active["total"] == JSONValue(640 * 4096))
        #expect(active["remaining"]?.integer ?? 0 > 0)
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 0])
        try await ferrying.destination.wait(for: "completed")
        let completed = try #require(try await ferrying.destination.command("query-migrate")["ram"])
        #expect(completed["remaining"] == 0)
        #expect(completed["page-size"] == 4096)
        let normal = completed["normal"]?.integer ?? 0
        #expect(normal >= 480 && normal + (completed["duplicate"]?.integer ?? 0) == 640)
        #expect(completed["transferred"] == .integer(normal * 4096))
    }

    @Test func `max-postcopy-bandwidth limits the push until it is lifted`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 4096])
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-active")
        let sent = { try await ferrying.source.command("query-migrate")["ram"]?["postcopy-bytes"]?.integer ?? 0 }
        // The workload may request pages meanwhile, but most pages arrive only when the limit is gone.
        #expect(try await sent() < 500 * 4096)
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 0])
        try await ferrying.source.wait(for: "completed")
        #expect(try await sent() >= 480 * 4096)
    }

    @Test func `a limited push does not delay the end of its link`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 1])
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-active")
        ferrying.relay.end()
        try await ferrying.source.wait(for: "postcopy-paused")
    }

    @Test func `the remaining memory is reported from the first moment on`() async throws {
        let ferrying = try await Ferrying(pushes: false)
        defer { ferrying.end() }
        try await ferrying.source.command("migrate", ["uri": ferrying.uri])
        try await ferrying.source.wait(for: "active")
        let active = try await ferrying.source.command("query-migrate")
        #expect(active["ram"]?["remaining"] == JSONValue(640 * 4096))
        #expect(active["ram"]?["transferred"] == 0)
        #expect(active["ram"]?["mbps"] == 0.0)
        #expect(active["setup-time"]?.integer ?? -1 >= 0)
        #expect(active["downtime"] == nil)
    }

    @Test func `query-migrate reports the cost of faults in QEMU's fields`() async throws {
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
        let setup = try #require(source["setup-time"]?.integer)
        #expect(setup <= source["total-time"]?.integer ?? 0)
        // The count begins when pages can be sent. Each page was sent once, and at most the pages of the load twice.
        #expect(ram["mbps"]?.double ?? 0 > 0)
        // The agent does not measure these fields.
        #expect(ram["dirty-pages-rate"] == nil)
        #expect(ram["downtime-bytes"] == nil)
        let destination = try await ferrying.destination.command("query-migrate")
        let counts = destination["postcopy-latency-dist"]?.array ?? []
        #expect(counts.count == 32)
        let latency = destination["postcopy-latency"]
        #expect((latency?.integer ?? 0 > 0) == counts.contains { $0 != 0 })
        // The test workload does not name its threads.
        #expect(destination["postcopy-vcpu-latency"] == [])
        #expect(destination["postcopy-non-vcpu-latency"] == latency)
        #expect(destination["postcopy-blocktime"] == nil)
    }
}

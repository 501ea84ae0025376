import Connections
import Identity
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Testing

@testable import Controller

/// Bad bytes harm only their sender.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct BadInputTests {
    /// A client that does not belong at the migration's port.
    enum Intruder: CaseIterable, Sendable {
        case random, http, wrongNonce, oldVersion, hugeHello, notAnOpening, secondSource, destination, silent, gone

        /// The first bytes that the client sends.
        func opening() throws -> [UInt8] {
            switch self {
            case .random: return (0..<999).map { UInt8(truncatingIfNeeded: $0 &* 151 &+ 3) }
            case .http: return Array("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8)
            case .wrongNonce: return Join(lane: .urgent, migration: .random(), nonce: .random()).encode()
            case .oldVersion:
                var hello = try hello(.source)
                hello[12] = 9
                return hello
            case .hugeHello: return [0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0]
            case .notAnOpening: return try ControlMessage.run(token: 1, epoch: 0).encode()
            case .secondSource: return try hello(.source)
            case .destination: return try hello(.destination)
            case .silent, .gone: return []
            }
        }

        /// A part of the reason that the client gets; nil if it gets none.
        var reason: String? {
            switch self {
            case .random, .http: nil
            case .wrongNonce: "no migration of that id and nonce waits for its urgent lane"
            case .oldVersion: "version 9"
            case .hugeHello: "HELLO"
            case .notAnOpening: "RUN"
            case .secondSource: "this agent is busy with a migration"
            case .destination: "a destination dialed a destination"
            case .silent, .gone: nil
            }
        }

        private func hello(_ role: PeerRole) throws -> [UInt8] {
            let hello = Hello(
                role: role,
                capabilities: .startResult,
                migration: .random(),
                instance: .random(),
                nonce: .zero,
                lease: .absent
            )
            return try ControlMessage.hello(hello).encode()
        }
    }

    @Test func `no client of the port disturbs a migration that is under way`() async throws {
        let ferrying = try await Ferrying { $0.clock.behave { $0.load = .waits } }
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.destination.wait(for: "postcopy-device")
        var held: [RawSource] = []
        for intruder in Intruder.allCases {
            let raw = try RawSource(to: ferrying.address)
            try raw.socket.send(intruder.opening())
            switch intruder {
            case .silent: held.append(raw)
            case .gone: break
            default:
                let told = await raw.untilHangUp()
                guard let reason = intruder.reason else { continue }
                #expect(told?.contains(reason) == true, "\(intruder) was told: \(told ?? "nothing")")
            }
        }
        ferrying.landing.workload?.clock.gate.open()
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        #expect(ferrying.wrongPages() == [])
        #expect(!ferrying.journal.ranTwice)
        withExtendedLifetime(held) {}
    }

    /// Sources that break the protocol before they are accepted.
    @Test(arguments: [
        "gone after HELLO", "gone after REGIONS", "REGIONS twice", "silent lane", "gone between lanes",
        "a lane too many",
    ])
    func `a source that disconnects before READY makes room for the next`(what: String) async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let raw = try RawSource(to: ferrying.address)
        try raw.sendHello()
        let nonce = try #require(try await raw.nonce())
        var lanes: [Held] = []
        switch what {
        case "gone after HELLO": raw.socket.shutdown()
        case "gone after REGIONS":
            try raw.sendRegions()
            raw.socket.shutdown()
        case "REGIONS twice":
            try raw.sendRegions()
            try raw.sendRegions()
            #expect(await raw.untilHangUp() == "the source sent REGIONS twice")
        case "silent lane":
            try raw.sendRegions()
            for lane in Lane.allCases {
                lanes.append(try RawSource.join(lane, raw.migration, nonce, at: ferrying.address))
            }
            // The source does not answer the probe on the urgent lane, and the destination times out after seconds.
            let told = await raw.untilHangUp()
            #expect(told?.isEmpty == false)
        case "a lane too many":
            let lane = try RawSource.join(.urgent, index: 1, raw.migration, nonce, at: ferrying.address)
            let told = try await onThread("lane") { try ControlLane.receive(from: lane.socket) }
            #expect(told == .refused(reason: "no migration of that id and nonce waits for its urgent lane 1"))
            raw.socket.shutdown()
        default:
            try raw.sendRegions()
            lanes.append(try RawSource.join(.urgent, raw.migration, nonce, at: ferrying.address))
            raw.socket.shutdown()
        }
        // The destination may become free only a moment later.
        try await migrateUntilTaken(ferrying)
        try await ferrying.source.wait(for: "completed")
        #expect(ferrying.wrongPages() == [])
        withExtendedLifetime(lanes) {}
    }

    private func migrateUntilTaken(_ ferrying: Ferrying) async throws {
        for _ in 0..<200 {
            try await ferrying.source.command("migrate", ["uri": .string(ferrying.address.description)])
            while true {
                let status = try await ferrying.source.command("query-migrate")["status"]?.string
                if ferrying.source.passed.contains("active") { return try await switchOver(ferrying) }
                if status == "failed" { break }
                try await Task.sleep(for: .milliseconds(2))
            }
        }
        Issue.record("never taken: \(try await ferrying.source.failure ?? "")")
    }

    private func switchOver(_ ferrying: Ferrying) async throws {
        try await ferrying.source.command("migrate-start-postcopy")
    }

    @Test(arguments: [
        [ControlMessage.run(token: 7, epoch: 0)],
        [.listen, .run(token: 7, epoch: 0)],
        [.listen, .devices([]), .run(token: 7, epoch: 0)],
        [.listen, .ping(1), .run(token: 7, epoch: 0)],
        [.complete], [.bye], [.running(token: 1)], [.deviceData([1])],
        [.listen, .devices([DeviceEntry(name: "disk", byteCount: 2)]), .deviceData([1, 2, 3])],
    ])
    func `the workload of a source that sends frames out of order never runs`(messages: [ControlMessage]) async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let raw = try RawSource(to: ferrying.address)
        try raw.sendHello()
        let nonce = try #require(try await raw.nonce())
        try raw.sendRegions()
        let urgent = try RawSource.join(.urgent, raw.migration, nonce, at: ferrying.address)
        let bulk = try RawSource.join(.bulk, raw.migration, nonce, at: ferrying.address)
        let answering = try JoinedThread(name: "probes") { Self.answerProbes(urgent) }
        #expect(try await raw.next() == .ready)
        for message in messages { try? raw.send(message) }
        _ = await raw.untilHangUp()
        try await ferrying.destination.wait(for: "failed")
        #expect(ferrying.journal.running == ["source"])
        #expect(ferrying.journal.index(of: "destination run") == nil)
        urgent.socket.shutdown()
        answering.join()
        withExtendedLifetime(bulk) {}
    }

    static func answerProbes(_ urgent: Held) {
        var frame = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        var reply = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount + Int(Wire.probeReplyBytes))
        reply.withUnsafeMutableBytes { if let base = $0.baseAddress { LaneFrame.probeReply.encode(into: base) } }
        while (try? frame.withUnsafeMutableBytes { try urgent.socket.receive(exactly: $0) }) == frame.count {
            guard (try? urgent.socket.send(reply)) != nil else { return }
        }
    }
}

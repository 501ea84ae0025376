import Connections
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Synchronization
import Testing

@testable import Controller

/// Silent or incomplete connections do not keep others out of a migration port.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct OpeningTests {
    /// Makes `count` connections, and sends the same bytes on each.
    private func connect(_ count: Int, to address: SocketAddress, saying bytes: [UInt8] = []) throws -> [Held] {
        try (0..<count).map { _ in
            let socket = try StreamSocket(connectingTo: address)
            if !bytes.isEmpty { try socket.send(bytes) }
            return Held(socket)
        }
    }

    @Test(arguments: [[], [0x51, 0, 0]])
    func `forty connections without a complete first frame keep no source out`(bytes: [UInt8]) async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let idle = try connect(40, to: ferrying.address, saying: bytes)
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        #expect(ferrying.wrongPages() == [])
        withExtendedLifetime(idle) {}
    }

    @Test func `a source can reconnect while strangers take every place again and again`() async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60), pushes: false)
        defer { ferrying.end() }
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        try await ferrying.destination.wait(for: "postcopy-active")
        let isOver = Flag()
        let connections = Atomic<Int>(0)
        let strangers = ThreadGroup()
        for _ in 0..<3 {
            try strangers.run("stranger") { [address = ferrying.address] in
                var held: [Held] = []
                while !isOver.value.load(ordering: .acquiring) {
                    guard let socket = try? StreamSocket(connectingTo: address) else { continue }
                    connections.add(1, ordering: .relaxed)
                    held.append(Held(socket))
                    if held.count > 200 { held.removeFirst() }
                }
            }
        }
        // By now strangers have taken every place more than once.
        #expect(try await soon { connections.load(ordering: .relaxed) > 1000 })
        let begin = ContinuousClock.now
        ferrying.relay.cutAll()
        #expect(try await soon { ferrying.source.passed.contains("postcopy-recover") })
        #expect(try await soon { ferrying.source.passed.last == "postcopy-active" })
        let time = ContinuousClock.now - begin
        isOver.value.store(true, ordering: .releasing)
        await strangers.joined()
        #expect(time < .seconds(20), "after \(connections.load(ordering: .relaxed)) connections")
        #expect(ferrying.wrongPages() == [])
        try await ferrying.source.wait(for: "completed")
    }

    private final class Flag: Sendable {
        let value = Atomic<Bool>(false)
    }

    @Test func `a peer that sends only HELLO makes room for the next`() async throws {
        // The peer is silent, and must not be dropped for that.
        let ferrying = try await Ferrying(peerTimeout: .seconds(60))
        defer { ferrying.end() }
        let squatter = try RawSource(to: ferrying.address)
        try squatter.sendHello()
        _ = try await squatter.nonce()
        // Within its first second the peer may still send REGIONS.
        #expect(
            try await soon {
                try await ferrying.source.command("migrate", ["uri": .string(ferrying.address.description)])
                return try await soon {
                    let state = try await ferrying.source.command("query-migrate")["status"]?.string
                    return state == "active" || state == "failed"
                } && ferrying.source.passed.contains("active")
            }
        )
        #expect(await squatter.untilHangUp()?.contains("no REGIONS") == true)
        try await ferrying.source.command("migrate-start-postcopy")
        try await ferrying.source.wait(for: "completed")
    }
}

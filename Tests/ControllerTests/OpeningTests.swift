import Connections
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Testing

@testable import Controller

/// Connections that say nothing, or not enough, keep nobody else out of a migration port.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct OpeningTests {
    /// Connects so many times, and says the same each time.
    private func connect(_ count: Int, to address: SocketAddress, saying bytes: [UInt8] = []) throws -> [Held] {
        try (0..<count).map { _ in
            let socket = try StreamSocket(connectingTo: address)
            if !bytes.isEmpty { try socket.send(bytes) }
            return Held(socket)
        }
    }

    @Test(arguments: [[], [0x51, 0, 0]])
    func `forty connections that do not say what they are keep no source out`(bytes: [UInt8]) async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let idle = try connect(40, to: ferrying.address, saying: bytes)
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "completed")
        #expect(ferrying.wrongPages() == [])
        withExtendedLifetime(idle) {}
    }

    @Test func `a peer that says HELLO and nothing more gives its place to the next`() async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        let squatter = try RawSource(to: ferrying.address)
        try squatter.sendHello()
        _ = try await squatter.nonce()
        // Within its first second it may still send REGIONS.
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

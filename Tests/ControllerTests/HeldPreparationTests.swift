import Guest
import Identity
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Telemetry
import Testing

@testable import Controller
@testable import Switchover

/// A source that connects while memory is still prepared for a source that has disconnected.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct HeldPreparationTests {
    /// A landing that delays the first guest until its gate opens.
    private final class SlowLanding: Landing {
        let landing: TestLanding
        let gate: Gate

        init(_ landing: TestLanding) throws {
            self.landing = landing
            gate = try Gate()
        }

        func prepare(
            _ description: GuestDescription,
            onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
        ) throws -> any Workload {
            gate.pass()
            return try landing.prepare(description, onMemory: onMemory)
        }
    }

    /// A destination that prepares memory for a source that has disconnected.
    private func left(
        _ landing: SlowLanding,
        _ clock: TestClock = TestClock()
    ) async throws -> (Host, SocketAddress) {
        var configuration = Agent.Configuration()
        configuration.clock = clock
        // The test's source does not answer PING.
        configuration.peerTimeout = .seconds(60)
        let destination = Host(landing: landing, configuration: configuration)
        let address = try await destination.agent.listen(at: .tcp(host: "127.0.0.1", port: 0), exitsOnError: false)
        let stranger = try RawSource(to: address)
        try stranger.sendHello()
        #expect(try await stranger.nonce() != nil)
        try stranger.sendRegions()
        #expect(try await soon { landing.gate.hasVisitor })
        stranger.socket.shutdown()
        try await destination.wait(forLine: "no link to the source")
        return (destination, address)
    }

    @Test func `the next source waits for the preparation, and then moves its workload`() async throws {
        let journal = Journal()
        let landing = try SlowLanding(TestLanding(journal: journal))
        defer {
            landing.gate.open()
            landing.landing.releaseReaders()
        }
        let (destination, address) = try await left(landing)
        let workload = try TestWorkload.filled(journal: journal)
        let source = Host(workload: workload)
        try await source.agent.startWorkload()
        try await source.command("migrate", ["uri": .string(address.description)])
        try await source.command("migrate-start-postcopy")
        try await destination.wait(forLine: "a source waits until the memory of a broken link is freed")
        landing.gate.open()
        try await source.wait(for: "completed")
        try await destination.wait(for: "completed")
        try await destination.command("stop")
    }

    @Test func `the next source gets the reason if the preparation takes too long`() async throws {
        let landing = try SlowLanding(TestLanding(journal: Journal()))
        defer { landing.gate.open() }
        let clock = TestClock()
        let (destination, address) = try await left(landing, clock)
        let source = try RawSource(to: address)
        try source.sendHello()
        #expect(try await source.nonce() != nil)
        try source.sendRegions()
        try await destination.wait(forLine: "a source waits until the memory of a broken link is freed")
        clock.skip(DestinationSession.preparationTime)
        let reason = await source.untilHangUp()
        #expect(reason == "memory is still being prepared for a link that broke; try again")
    }
}

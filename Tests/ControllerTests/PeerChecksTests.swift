import Connections
import Identity
import LinuxSystem
import OwnThread
import PageProtocol
import QMP
import Testing

@testable import Controller

/// The checks that each side makes of the other, and the reasons that it reports.
@Suite(.ownThread, .timeLimit(.minutes(2)))
struct PeerChecksTests {
    /// Plays a destination that answers with a changed HELLO, and returns the source's reason for the failure.
    private func failure(of source: Host, meeting answer: @escaping @Sendable (Hello) -> Hello) async throws -> String {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let address = listener.address
        try await source.command("migrate", ["uri": .string(address.description)])
        guard let socket = try listener.accept() else { throw Host.NeverCame() }
        let held = Held(socket)
        guard case .hello(let hello) = try await onThread("hello", { try ControlLane.receive(from: held.socket) })
        else {
            throw Host.NeverCame()
        }
        try held.socket.send(ControlMessage.hello(answer(hello)).encode())
        try await source.wait(for: "failed")
        #expect(try await source.isRunning)
        return try await source.failure ?? ""
    }

    private static func answer(to hello: Hello) -> Hello {
        var answer = hello
        answer.role = .destination
        answer.nonce = .random()
        answer.instance = .random()
        return answer
    }

    @Test func `a source refuses a destination's HELLO that has another lease or rejoins`() async throws {
        let source = Host(workload: try TestWorkload.filled(journal: Journal()))
        try await source.agent.startWorkload()
        let foreign = try await failure(of: source) {
            var answer = Self.answer(to: $0)
            answer.lease = .files(epoch: 1, store: "/srv", workload: "vm")
            return answer
        }
        #expect(foreign.contains("another run lease"), "\(foreign)")
        let again = try await failure(of: source) {
            var answer = Self.answer(to: $0)
            answer.rejoins = true
            return answer
        }
        #expect(again.contains("rejoins"), "\(again)")
        try await source.command("stop")
    }

    @Test func `regions that do not fit get one answer`() async throws {
        let ferrying = try await Ferrying(maxPages: 7)
        defer { ferrying.end() }
        let raw = try RawSource(to: ferrying.address)
        try raw.sendHello()
        let nonce = try #require(try await raw.nonce())
        try raw.sendRegions(pageCount: 8)
        #expect(try await raw.next() == .refused(reason: "8 pages do not fit here"))
        #expect(try await raw.next() == nil)
        // The lanes of a source that was just refused may come late. The log has its reason, and no line about each lane.
        func join(_ lane: Lane, _ nonce: Nonce) async throws -> ControlMessage? {
            let held = try RawSource.join(lane, raw.migration, nonce, at: ferrying.address)
            return try await onThread("lane") { try ControlLane.receive(from: held.socket) }
        }
        for lane in Lane.allCases {
            #expect(try await join(lane, nonce) == .refused(reason: "the link of this \(lane) lane has ended"))
        }
        #expect(ferrying.destination.lines(containing: "refused a connection") == 0)
        // The lane of a stranger is still reported.
        let reason = "no migration of that id and nonce waits for its bulk lane"
        #expect(try await join(.bulk, .zero) == .refused(reason: reason))
        try await ferrying.destination.wait(forLine: "refused a connection")
    }

    @Test func `when all lanes end, the reported reason is that of the first`() async throws {
        let journal = Journal()
        let landing = TestLanding(journal: journal)
        let destination = Host(landing: landing)
        let address = try await destination.agent.listen(
            at: .tcp(host: "127.0.0.1", port: 0),
            exitsOnError: true,
            waitsOn: true
        )
        for round in 0..<16 {
            let failures = destination.passed.count { $0 == "failed" }
            let raw = try RawSource(to: address)
            try raw.sendHello()
            let nonce = try #require(try await raw.nonce())
            try raw.sendRegions()
            let urgent = try RawSource.join(.urgent, raw.migration, nonce, at: address)
            let bulk = try RawSource.join(.bulk, raw.migration, nonce, at: address)
            let answering = try JoinedThread(name: "probes") { BadInputTests.answerProbes(urgent) }
            #expect(try await raw.next() == .ready)
            try raw.send(.listen)
            let attacked: Lane = round % 2 == 0 ? .bulk : .urgent
            try (attacked == .bulk ? bulk : urgent).socket.send([UInt8](repeating: 0x99, count: 64))
            #expect(try await soon { destination.passed.count { $0 == "failed" } == failures + 1 })
            let failure = try await destination.failure ?? ""
            #expect(failure.contains("the \(attacked) lane broke: "), "\(failure)")
            urgent.socket.shutdown()
            answering.join()
        }
    }
}

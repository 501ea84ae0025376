import LinuxSystem
import OwnThread
import Synchronization
import Testing

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct ConnectionThreadsTests {
    /// A connection that counts its calls, and does what a test wants in each.
    private final class Connection: ServedConnection {
        let socket: SharedSocket
        let peer: SharedSocket
        let calls = Atomic<Int>(0)
        let waits = Mutex<[Bool]>([])
        private let body: @Sendable (Connection) -> Void

        init(_ body: @escaping @Sendable (Connection) -> Void = { _ in }) throws {
            (socket, peer) = try StreamSocket.pair()
            self.body = body
        }

        func serve(mayWait: Bool) {
            waits.withLock { $0.append(mayWait) }
            body(self)
            calls.add(1, ordering: .releasing)
        }

        func waitForCalls(_ count: Int) throws {
            let deadline = MonotonicClock.now() + 20_000_000_000
            while calls.load(ordering: .acquiring) < count {
                guard MonotonicClock.now() < deadline else { throw TooFewCalls() }
                MonotonicClock.sleep(nanoseconds: 1_000_000)
            }
        }
    }

    private struct TooFewCalls: Error {}

    private func threads(isGrowing: Bool) throws -> ConnectionThreads {
        try ConnectionThreads(name: "connections", pace: .usual, isGrowing: isGrowing)
    }

    private func countThreads() throws -> Int { try RunningThread.all().count { $0.name == "connections" } }

    @Test func `a connection is served once for each wait, for bytes, for room and for the peer's end`() throws {
        let threads = try threads(isGrowing: true)
        defer { threads.stop() }
        let connection = try Connection()
        try threads.add(connection)
        defer { threads.remove(connection) }
        try connection.peer.stream.send([1])
        try connection.waitForCalls(1)
        // The byte is still there, and counts again only for the next wait.
        MonotonicClock.sleep(nanoseconds: 20_000_000)
        #expect(connection.calls.load(ordering: .acquiring) == 1)
        threads.wait(for: .bytes, on: connection)
        try connection.waitForCalls(2)
        threads.wait(for: .room, on: connection)
        try connection.waitForCalls(3)
        var byte: [UInt8] = [0]
        #expect(try byte.withUnsafeMutableBytes { try connection.socket.stream.receive(into: $0) } == 1)
        threads.wait(for: .bytes, on: connection)
        connection.peer.stream.shutdown()
        try connection.waitForCalls(4)
    }

    @Test func `while threads serve connections, another one waits for the rest, and few threads are kept`() throws {
        let threads = try threads(isGrowing: true)
        defer { threads.stop() }
        let release = try SharedFlag()
        let busy = try (0..<20).map { _ in try Connection { _ in release.flag.wait() } }
        let other = try Connection()
        for connection in busy + [other] { try threads.add(connection) }
        defer { for connection in busy + [other] { threads.remove(connection) } }
        for connection in busy { try connection.peer.stream.send([1]) }
        try other.peer.stream.send([1])
        try other.waitForCalls(1)
        release.flag.raise()
        for connection in busy {
            try connection.waitForCalls(1)
            #expect(connection.waits.withLock(\.self) == [true])
        }
        let deadline = MonotonicClock.now() + 20_000_000_000
        while try countThreads() > 4, MonotonicClock.now() < deadline { MonotonicClock.sleep(nanoseconds: 1_000_000) }
        #expect(try countThreads() <= 4)
    }

    @Test func `a group that does not grow serves all connections by one thread, which may not wait`() throws {
        let threads = try threads(isGrowing: false)
        defer { threads.stop() }
        let connections = try (0..<20).map { _ in try Connection() }
        for connection in connections { try threads.add(connection) }
        defer { for connection in connections { threads.remove(connection) } }
        for connection in connections { try connection.peer.stream.send([1]) }
        for connection in connections {
            try connection.waitForCalls(1)
            #expect(connection.waits.withLock(\.self) == [false])
        }
    }

    @Test func `a connection that was removed is served no more`() throws {
        let threads = try threads(isGrowing: true)
        defer { threads.stop() }
        let (removed, other) = (try Connection(), try Connection())
        for connection in [removed, other] { try threads.add(connection) }
        defer { threads.remove(other) }
        threads.remove(removed)
        threads.wait(for: .room, on: removed)
        for connection in [removed, other] { try connection.peer.stream.send([1]) }
        try other.waitForCalls(1)
        #expect(removed.calls.load(ordering: .acquiring) == 0)
    }
}

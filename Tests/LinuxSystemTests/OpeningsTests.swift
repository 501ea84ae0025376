import Glibc
import OwnThread
import Synchronization
import SystemPackage
import Testing

@testable import LinuxSystem

/// Connections that have not sent their first message.
@Suite(.ownThread, .timeLimit(.minutes(1)))
struct OpeningsTests {
    /// The connections that were accepted, dropped or refused.
    private final class Told: Sendable {
        private struct State {
            var opened: [[UInt8]] = []
            var dropped: [String] = []
            var shortages: [String] = []
        }

        private let state = Mutex(State())
        private let flag: EventDescriptor

        init() throws { flag = try EventDescriptor() }

        var opened: [[UInt8]] { state.withLock(\.opened) }
        var dropped: [String] { state.withLock(\.dropped) }

        func open(_ bytes: [UInt8]) {
            state.withLock { $0.opened.append(bytes) }
            flag.raise()
        }

        func drop(_ reason: String) {
            state.withLock { $0.dropped.append(reason) }
            flag.raise()
        }

        var shortages: [String] { state.withLock(\.shortages) }

        func shorten(_ reason: String) {
            state.withLock { $0.shortages.append(reason) }
            flag.raise()
        }

        /// Waits until a condition holds; returns false after 30 seconds.
        func wait(until isThere: (Told) -> Bool) -> Bool {
            let deadline = MonotonicClock.now() + 30_000_000_000
            while !isThere(self) {
                guard MonotonicClock.now() < deadline else { return false }
                if flag.wait(milliseconds: 1000) { flag.clear() }
            }
            return true
        }
    }

    /// Makes an object that reads opening messages of four bytes.
    private func openings(
        _ address: SocketAddress,
        total: Int = 4,
        perPeer: Int = 4,
        milliseconds: UInt64 = 20_000,
        shortage: @escaping @Sendable () -> SystemError? = { nil }
    ) throws -> (openings: Openings<[UInt8]>, told: Told) {
        let told = try Told()
        var bounds = Openings<[UInt8]>.Bounds()
        (bounds.total, bounds.perPeer, bounds.nanoseconds) = (total, perPeer, milliseconds * 1_000_000)
        let openings = try Openings(
            Listener(at: address),
            name: "openings",
            bounds: bounds,
            Openings<[UInt8]>.Handling(
                read: { socket, bytes in
                    var piece = [UInt8](repeating: 0, count: 4 - bytes.count)
                    guard let count = try piece.withUnsafeMutableBytes({ try socket.receiveNow(into: $0) }) else {
                        return nil
                    }
                    guard count > 0 else { throw SystemError("read all", .brokenPipe) }
                    bytes += piece.prefix(count)
                    return bytes.count == 4 ? bytes : nil
                },
                open: { _, bytes in told.open(bytes) },
                drop: { told.drop("\($1)") },
                shortage: shortage,
                onShortage: { told.shorten("\($0)") },
                onEnd: { told.drop("\($0)") }
            )
        )
        return (openings, told)
    }

    private let loopback = SocketAddress.tcp(host: "127.0.0.1", port: 0)

    @Test(arguments: [(total: 4, perPeer: 9), (total: 9, perPeer: 4)])
    func `the oldest makes room for the next, and a complete message is accepted`(total: Int, perPeer: Int) throws {
        let (openings, told) = try openings(loopback, total: total, perPeer: perPeer)
        defer { openings.stop() }
        var held: [SharedSocket] = []
        for _ in 0..<10 { held.append(SharedSocket(try StreamSocket(connectingTo: openings.address))) }
        #expect(told.wait { $0.dropped.count == 6 })
        #expect(Set(told.dropped) == [OpeningRefusal.madeRoom.description])
        // The oldest connections are closed, and the newest are open.
        var byte: [UInt8] = [0]
        #expect(try byte.withUnsafeMutableBytes { try held[0].stream.receive(into: $0) } == 0)
        for socket in held.suffix(4) { try socket.stream.send([1, 2]) }
        for socket in held.suffix(4) { try socket.stream.send([3, 4]) }
        #expect(told.wait { $0.opened.count == 4 })
        #expect(told.opened == Array(repeating: [1, 2, 3, 4], count: 4))
        #expect(told.dropped.count == 6)
    }

    @Test func `a connection with a part of a message does not keep its place`() throws {
        let (openings, told) = try openings(loopback)
        defer { openings.stop() }
        let held = try (0..<20).map { _ in
            let socket = SharedSocket(try StreamSocket(connectingTo: openings.address))
            try socket.stream.send([1])
            return socket
        }
        for number in UInt8(0)..<20 {
            let socket = try StreamSocket(connectingTo: openings.address)
            try socket.send([number, 0, 0, 0])
            #expect(told.wait { $0.opened.count == Int(number) + 1 })
        }
        withExtendedLifetime(held) {}
    }

    @Test func `a connection without a whole message in time is dropped, even if it sends byte by byte`() throws {
        let (openings, told) = try openings(loopback, milliseconds: 100)
        defer { openings.stop() }
        let silent = try StreamSocket(connectingTo: openings.address)
        let slow = try StreamSocket(connectingTo: openings.address)
        try slow.send([1])
        #expect(told.wait { $0.dropped.count == 2 })
        #expect(Set(told.dropped) == [OpeningRefusal.tooLate.description])
        withExtendedLifetime((silent.peer, slow.peer)) {}
    }

    @Test func `a message waits in its socket during a shortage, however long it lasts`() throws {
        let over = try SharedFlag()
        let asked = Counts()
        let shortage = SystemError("take a message", .tooManyOpenFiles)
        let (openings, told) = try openings(loopback, milliseconds: 100) {
            asked.add(1)
            return over.flag.isRaised ? nil : shortage
        }
        defer { openings.stop() }
        let socket = try StreamSocket(connectingTo: openings.address)
        try socket.send([1, 2, 3, 4])
        // Each time takes 100 ms, so that the time for the message is over.
        #expect(told.wait { _ in asked.sum > 4 })
        #expect(told.opened == [] && told.dropped == [])
        #expect(told.shortages == ["\(shortage)"])
        over.flag.raise()
        #expect(told.wait { $0.opened == [[1, 2, 3, 4]] })
        #expect(told.dropped == [])
        withExtendedLifetime(socket.peer) {}
    }

    @Test func `a shortage does not keep connections from being closed at the end`() throws {
        let (openings, told) = try openings(loopback) { SystemError("take a message", .tooManyOpenFiles) }
        let socket = try StreamSocket(connectingTo: openings.address)
        #expect(told.wait { $0.shortages.count == 1 })
        openings.stop()
        #expect(told.opened == [])
        withExtendedLifetime(socket.peer) {}
    }

    @Test func `the connections of a process are counted together`() throws {
        try withSocketPath { path in
            let (openings, told) = try openings(.unix(path: path), total: 9, perPeer: 2)
            defer { openings.stop() }
            let held = try (0..<5).map { _ in SharedSocket(try StreamSocket(connectingTo: openings.address)) }
            #expect(told.wait { $0.dropped.count == 3 })
            withExtendedLifetime(held) {}
        }
    }

    @Test func `the end drops silent connections without waiting for them`() throws {
        let (openings, told) = try openings(loopback)
        let held = SharedSocket(try StreamSocket(connectingTo: openings.address))
        openings.stop()
        var byte: [UInt8] = [0]
        // The connection may have been accepted or not.
        _ = try? byte.withUnsafeMutableBytes { try held.stream.receive(into: $0) }
        #expect(told.opened == [])
    }

    @Test func `a peer is identified by its process, or by its host's address`() throws {
        let listener = try Listener(at: loopback)
        let peer = try StreamSocket(connectingTo: listener.address)
        let accepted = try #require(try origin(of: listener))
        #expect(accepted == .host(UInt64(UInt32(127) | 1 << 24)))
        try withSocketPath { path in
            let listener = try Listener(at: .unix(path: path))
            let peer = try StreamSocket(connectingTo: listener.address)
            #expect(try origin(of: listener) == .process(id: getpid(), user: geteuid()))
            withExtendedLifetime(peer.peer) {}
        }
        withExtendedLifetime(peer.peer) {}
    }

    private func origin(of listener: borrowing Listener) throws -> PeerOrigin? {
        guard let socket = try listener.accept() else { return nil }
        return socket.origin
    }
}

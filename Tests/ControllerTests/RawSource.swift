import Connections
import Identity
import LinuxSystem
import PageProtocol

@testable import Controller

/// A source that the test plays frame by frame.
final class RawSource: Sendable {
    let socket: StreamSocket
    let migration: MigrationID
    private let instance: InstanceID
    private let rejoins: Bool

    /// Connects to a destination.
    ///
    /// - Parameter earlier: the source whose migration this connection rejoins; nil for a new migration.
    init(to address: SocketAddress, rejoining earlier: RawSource? = nil) throws {
        migration = earlier?.migration ?? .random()
        instance = earlier?.instance ?? .random()
        rejoins = earlier != nil
        socket = try StreamSocket(connectingTo: address)
        try socket.setReceiveTimeout(seconds: 30)
    }

    func send(_ message: ControlMessage) throws {
        try socket.send(message.encode())
    }

    func sendHello(bulkLanes: Int = 1) throws {
        let hello = Hello(
            role: .source,
            rejoins: rejoins,
            bulkLanes: bulkLanes,
            capabilities: .startResult,
            migration: migration,
            instance: instance,
            nonce: .zero,
            lease: .absent
        )
        try send(.hello(hello))
    }

    func sendRegions(pageCount: UInt64 = 8) throws {
        let shape = RegionShape(name: "ram", guestAddress: 0, pageSize: 4096, pageCount: pageCount)
        try send(.regions(guest: GuestAnnouncement(kind: "test", configuration: [], regions: [shape])))
    }

    /// The destination's next message; nil when it has hung up.
    ///
    /// The wait takes a thread of its own, since the destination's actor needs the pool's threads.
    func next() async throws -> ControlMessage? {
        try await onThread("next") { [self] in
            while true {
                let message = try ControlLane.receive(from: socket)
                // The destination sends PING 0 each second.
                if message != .ping(ControlLane.anybody) { return message }
            }
        }
    }

    /// The nonce of the destination's HELLO, which must be its next message.
    func nonce() async throws -> Nonce? {
        guard case .hello(let hello) = try await next() else { return nil }
        return hello.nonce
    }

    /// Makes another connection, and joins it as a lane.
    static func join(
        _ lane: Lane,
        index: Int = 0,
        _ migration: MigrationID,
        _ nonce: Nonce,
        at address: SocketAddress
    ) throws -> Held {
        let socket = try StreamSocket(connectingTo: address)
        try socket.setReceiveTimeout(seconds: 30)
        try socket.send(Join(lane: lane, index: index, migration: migration, nonce: nonce).encode())
        return Held(socket)
    }

    /// Reads until the destination hangs up.
    ///
    /// - Returns: the last reason that the destination gave.
    func untilHangUp() async -> String? {
        var reason: String?
        while let message = try? await next() {
            switch message {
            case .refused(let text), .failure(let text): reason = text
            default: continue
            }
        }
        return reason
    }
}

/// A socket that stays open as long as a test holds it.
final class Held: Sendable {
    let socket: StreamSocket
    init(_ socket: consuming StreamSocket) { self.socket = socket }
}

import Connections
import LinuxSystem
import OwnThread
import PageProtocol
import Synchronization
import Testing

@testable import Controller

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct ControlLaneTests {
    /// The events of a lane.
    private final class Told: Sendable {
        private let events = Mutex<[ControlLane.Event]>([])

        func add(_ event: ControlLane.Event) { events.withLock { $0.append(event) } }

        var messages: [ControlMessage] {
            events.withLock { $0 }.compactMap { if case .message(let message, _) = $0 { message } else { nil } }
        }

        var loss: String? {
            events.withLock { $0 }.lazy.compactMap { event in
                switch event {
                case .lost(let reason), .silent(let reason): reason
                case .message: nil
                }
            }.first
        }
    }

    private struct NotAccepted: Error {}

    /// A lane and the other end of its connection.
    private func makeLane(setupTime: Duration = .seconds(60)) throws -> (lane: ControlLane, peer: Held, told: Told) {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let peer = Held(try StreamSocket(connectingTo: listener.address))
        let told = Told()
        guard let accepted = try listener.accept() else { throw NotAccepted() }
        return (try ControlLane(accepted, setupTime: setupTime, peerTimeout: .seconds(60)) { told.add($0) }, peer, told)
    }

    /// The next message that is not PING 0, which arrives each second.
    private func next(from peer: Held) throws -> ControlMessage? {
        while true {
            let message = try ControlLane.receive(from: peer.socket)
            if message != .ping(ControlLane.anybody) { return message }
        }
    }

    @Test func `a peer that is too slow in the setup is dropped, even if it sends byte by byte`() async throws {
        let (lane, peer, told) = try makeLane(setupTime: .milliseconds(200))
        defer { lane.finish() }
        let ping = try ControlMessage.ping(1).encode()
        try peer.socket.send(Array(ping.prefix(3)))
        #expect(try await soon { told.loss != nil })
        #expect(told.loss?.hasSuffix("was not ready within 200 ms") == true)
    }

    @Test func `a peer may be silent once it is allowed to`() async throws {
        let (lane, peer, told) = try makeLane(setupTime: .seconds(2))
        defer { lane.finish() }
        lane.allowSilence()
        // Wait for longer than the setup may take; the lane must stay.
        try await Task.sleep(for: .milliseconds(2200))
        try peer.socket.send(ControlMessage.ping(7).encode())
        #expect(try await soon { told.messages == [.ping(7)] })
        #expect(told.loss == nil)
    }

    @Test func `a peer that sends bytes which are not a frame still gets the reason`() async throws {
        let (lane, peer, told) = try makeLane()
        try peer.socket.send([0xff, 0xff, 0xff, 0xff, 0x77, 0, 0, 0])
        #expect(try await soon { told.loss != nil })
        try lane.send(.failure(reason: told.loss ?? ""))
        lane.finish()
        #expect(try next(from: peer) == .failure(reason: told.loss ?? ""))
        #expect(try next(from: peer) == nil)
    }

    @Test func `all queued messages are sent before the end`() throws {
        let (lane, peer, told) = try makeLane()
        let numbers = Array(UInt64(0)..<500)
        for number in numbers { try lane.send(.pong(number)) }
        let finishing = try JoinedThread(name: "finish") { lane.finish() }
        for number in numbers { #expect(try next(from: peer) == .pong(number)) }
        #expect(try next(from: peer) == nil)
        finishing.join()
        #expect(told.messages == [])
    }

    @Test func `a peer that never reads is dropped when too many bytes wait for it`() async throws {
        let (lane, peer, told) = try makeLane()
        defer { lane.finish() }
        let frame = try ControlMessage.deviceData([UInt8](repeating: 1, count: 64 << 10)).encode()
        // More frames than may wait for the sending thread and than fit into the connection's buffers.
        for _ in 0..<10_000 { lane.send(frame: frame) }
        #expect(try await soon { told.loss != nil })
        withExtendedLifetime(peer) {}
    }

    @Test func `messages that are not handled make the peer wait, and cost no more memory`() async throws {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let peer = Held(try StreamSocket(connectingTo: listener.address))
        let (events, event) = AsyncStream.makeStream(of: ControlLane.Event.self)
        let counted = Atomic<Int>(0)
        guard let accepted = try listener.accept() else { throw NotAccepted() }
        let lane = try ControlLane(accepted, peerTimeout: .seconds(2)) {
            counted.add(1, ordering: .relaxed)
            event.yield($0)
        }
        lane.allowSilence()
        defer { lane.finish() }
        let frame = try ControlMessage.deviceData([UInt8](repeating: 1, count: 1 << 20)).encode()
        let sending = try JoinedThread(name: "send") {
            // The lane accepts these 64 MiB only at the pace of its reader.
            for _ in 0..<64 { guard (try? peer.socket.send(frame)) != nil else { return } }
        }
        #expect(try await soon { counted.load(ordering: .relaxed) == 16 })
        // Wait for longer than a peer may be silent; here it is this side that does not read.
        try await Task.sleep(for: .milliseconds(2500))
        #expect(counted.load(ordering: .relaxed) == 16)
        var (received, losses): (Int, [String]) = (0, [])
        for await event in events {
            switch event {
            case .message: received += 1
            case .lost(let reason), .silent(let reason): losses.append(reason)
            }
            if received == 64 || !losses.isEmpty { break }
        }
        #expect(received == 64)
        #expect(losses == [])
        sending.join()
    }

    @Test func `whoever waits for the end of a lane learns of it, whichever side ends the lane`() throws {
        let (lane, peer, told) = try makeLane()
        lane.finish()
        #expect(told.loss?.hasSuffix(" was closed") == true)
        let (other, otherPeer, otherTold) = try makeLane()
        otherPeer.socket.shutdown()
        let deadline = MonotonicClock.now() + 20_000_000_000
        while otherTold.loss == nil, MonotonicClock.now() < deadline { MonotonicClock.sleep(nanoseconds: 1_000_000) }
        other.finish()
        #expect(otherTold.loss?.hasSuffix("closed the connection") == true)
        withExtendedLifetime(peer) {}
    }

    @Test func `the end does not wait for a message that is being handled`() async throws {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let peer = Held(try StreamSocket(connectingTo: listener.address))
        let (events, event) = AsyncStream.makeStream(of: ControlLane.Event.self)
        guard let accepted = try listener.accept() else { throw NotAccepted() }
        let lane = try ControlLane(accepted, peerTimeout: .seconds(60)) { event.yield($0) }
        let complete = try ControlMessage.complete.encode()
        for _ in 0..<100 { try peer.socket.send(complete) }
        lane.finish()
        withExtendedLifetime(events) {}
    }

    @Test func `a peer that sends far more messages than the protocol needs is dropped`() async throws {
        let (lane, peer, told) = try makeLane()
        defer { lane.finish() }
        let many = Array(repeatElement(try ControlMessage.ping(ControlLane.anybody).encode(), count: 5000).joined())
        let reading = try JoinedThread(name: "read") { while (try? ControlLane.receive(from: peer.socket)) != nil {} }
        for _ in 0..<10 where told.loss == nil { try? peer.socket.send(many) }
        #expect(try await soon { told.loss != nil })
        #expect(told.loss?.contains("short messages at once") == true)
        peer.socket.shutdown()
        reading.join()
    }

    @Test func `a frame that is cut off is reported`() async throws {
        let (lane, peer, told) = try makeLane()
        defer { lane.finish() }
        try peer.socket.send(Array(ControlMessage.ping(1).encode().prefix(12)))
        peer.socket.shutdown()
        #expect(try await soon { told.loss?.hasSuffix("closed the connection in the middle of a frame") == true })
    }
}

import Connections
public import LinuxSystem
public import PageProtocol

/// A destination of a snapshot's server that a test plays itself, frame by frame.
public final class SnapshotClient: Sendable {
    /// The control connection.
    public let control: StreamSocket
    /// What the server has answered.
    public let hello: Hello
    private let address: SocketAddress

    /// Connects, and says HELLO.
    public init(to address: SocketAddress, urgentLanes: Int = 1, as hello: Hello? = nil) throws {
        self.address = address
        control = try StreamSocket(connectingTo: address)
        try control.setReceiveTimeout(seconds: 30)
        let mine = hello ?? SnapshotClient.hello(urgentLanes: urgentLanes)
        try control.send(ControlMessage.hello(mine).encode())
        switch try SnapshotClient.next(from: control) {
        case .hello(let answer): self.hello = answer
        case .refused(let reason): throw ServerSays(reason: reason)
        case let message: throw ServerSays(reason: "\(String(describing: message))")
        }
    }

    /// What a destination says first.
    public static func hello(urgentLanes: Int = 1) -> Hello {
        Hello(
            role: .destination,
            urgentLanes: urgentLanes,
            capabilities: [],
            migration: .random(),
            instance: .random(),
            nonce: .zero,
            lease: .absent
        )
    }

    /// The server's next message but for the question whether anybody is there; nil when it has hung up.
    public func next() throws -> ControlMessage? { try SnapshotClient.next(from: control) }

    private static func next(from control: borrowing StreamSocket) throws -> ControlMessage? {
        while true {
            let message = try ControlLane.receive(from: control)
            if message != .ping(ControlLane.anybody) { return message }
        }
    }

    /// Reads until the server hangs up.
    ///
    /// - Returns: the last reason it gave.
    public func untilHangUp() -> String? {
        var reason: String?
        while let message = try? next() {
            switch message {
            case .refused(let text), .failure(let text): reason = text
            default: continue
            }
        }
        return reason
    }

    /// Says something on the control connection.
    public func say(_ message: ControlMessage) throws {
        try control.send(message.encode())
    }

    /// Names the slices that it will ask for.
    @discardableResult
    public func take(_ slices: [SnapshotSlice]) throws -> SnapshotIdentity {
        try say(.slices(slices))
        switch try next() {
        case .snapshot(let identity): return identity
        case .refused(let reason), .failure(let reason): throw ServerSays(reason: reason)
        case let message: throw ServerSays(reason: "\(String(describing: message))")
        }
    }

    /// Another connection, joined as a lane.
    public func join(_ lane: Lane, index: Int = 0, nonce: Nonce? = nil) throws -> SharedSocket {
        let socket = try StreamSocket(connectingTo: address)
        try socket.setReceiveTimeout(seconds: 30)
        let nonce = nonce ?? hello.nonce
        try socket.send(Join(lane: lane, index: index, migration: hello.migration, nonce: nonce).encode())
        return SharedSocket(socket)
    }
}

/// What a server has said instead of what was expected.
public struct ServerSays: Error, Equatable {
    /// Its words.
    public let reason: String

    /// Says something in its place.
    public init(reason: String) {
        self.reason = reason
    }
}

/// A run as it came.
public struct Answer: Sendable {
    /// The bytes of its pages, those of zero pages too.
    public var bytes: [UInt8]
    /// Pages that came as zeros, without bytes.
    public var zeroPages = 0
}

extension StreamSocket {
    /// Asks for a run of pages and receives them.
    public func ask(_ run: PageRun, pageSize: Int = 4096) throws -> Answer {
        try send(.pageRequest(run))
        var answer = Answer(bytes: [UInt8](repeating: 0, count: Int(run.count) * pageSize))
        var missing = Int(run.count)
        while missing > 0 {
            guard let frame = try receiveFrame() else { throw ServerSays(reason: "nothing more") }
            let place = Int(frame.run.first - run.first) * pageSize
            switch frame.kind {
            case .zeroes: answer.zeroPages += Int(frame.run.count)
            case .pages:
                let count = try answer.bytes.withUnsafeMutableBytes { bytes in
                    try receive(exactly: .init(rebasing: bytes[place..<place + Int(frame.bodyByteCount)]))
                }
                guard count == Int(frame.bodyByteCount) else { throw ServerSays(reason: "half a frame") }
            case .pageRequest, .probe, .probeReply: throw ServerSays(reason: "\(frame.kind)")
            }
            missing -= Int(frame.run.count)
        }
        return answer
    }

    /// Sends a lane frame.
    public func send(_ frame: LaneFrame) throws {
        var bytes = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        bytes.withUnsafeMutableBytes { if let base = $0.baseAddress { frame.encode(into: base) } }
        try send(bytes)
    }

    /// Receives a lane frame without what follows it; nil when the server has closed.
    public func receiveFrame() throws -> LaneFrame? {
        var bytes = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        let count = try bytes.withUnsafeMutableBytes { try receive(exactly: $0) }
        guard count == bytes.count else { return nil }
        return try LaneFrame.decode(bytes.span.bytes)
    }
}

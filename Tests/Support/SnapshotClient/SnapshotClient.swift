import Connections
package import Identity
package import LinuxSystem
package import PageProtocol

/// A client of a snapshot's server that a test plays frame by frame.
package final class SnapshotClient: Sendable {
    /// The control connection.
    package let control: StreamSocket
    /// The server's HELLO.
    package let hello: Hello
    private let address: SocketAddress

    /// Connects and sends HELLO.
    package init(to address: SocketAddress, urgentLanes: Int = 1, as hello: Hello? = nil) throws {
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

    /// The HELLO of a destination.
    package static func hello(urgentLanes: Int = 1) -> Hello {
        Hello(
            role: .destination,
            urgentLanes: urgentLanes,
            capabilities: .snapshotProof,
            migration: .random(),
            instance: .random(),
            nonce: .zero,
            lease: .absent
        )
    }

    /// The server's next message other than PING; nil if the server has hung up.
    package func next() throws -> ControlMessage? { try SnapshotClient.next(from: control) }

    private static func next(from control: borrowing StreamSocket) throws -> ControlMessage? {
        while true {
            let message = try ControlLane.receive(from: control)
            if message != .ping(ControlLane.anybody) { return message }
        }
    }

    /// Reads until the server hangs up.
    ///
    /// - Returns: the last reason that the server gave.
    package func untilHangUp() -> String? {
        var reason: String?
        while let message = try? next() {
            switch message {
            case .refused(let text), .failure(let text): reason = text
            default: continue
            }
        }
        return reason
    }

    /// Sends a message on the control connection.
    package func say(_ message: ControlMessage) throws {
        try control.send(message.encode())
    }

    /// Sends SLICES, which name the pages that the client will request.
    @discardableResult
    package func take(_ slices: [SnapshotSlice]) throws -> SnapshotIdentity {
        try say(.slices(slices))
        switch try next() {
        case .snapshot(let identity): return identity
        case .refused(let reason), .failure(let reason): throw ServerSays(reason: reason)
        case let message: throw ServerSays(reason: "\(String(describing: message))")
        }
    }

    /// Makes another connection, and joins it as a lane.
    package func join(_ lane: Lane, index: Int = 0, nonce: Nonce? = nil) throws -> SharedSocket {
        let socket = try StreamSocket(connectingTo: address)
        try socket.setReceiveTimeout(seconds: 30)
        let nonce = nonce ?? hello.nonce
        try socket.send(Join(lane: lane, index: index, migration: hello.migration, nonce: nonce).encode())
        return SharedSocket(socket)
    }
}

/// The error of a server's answer that was not expected.
package struct ServerSays: Error, Equatable {
    /// The server's reason.
    package let reason: String

    /// An error with a reason.
    package init(reason: String) {
        self.reason = reason
    }
}

/// A run of pages as it was received.
package struct Answer: Sendable {
    /// The bytes of the run's pages, including those of zero pages.
    package var bytes: [UInt8]
    /// The number of pages that were received as zeros, without bytes.
    package var zeroPages = 0
}

extension StreamSocket {
    /// Requests a run of pages and receives them.
    package func ask(_ run: PageRun, pageSize: Int = 4096) throws -> Answer {
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
            case .pageRequest, .probe, .probeReply, .aheadRequest, .sent, .pagesLZ4, .pagesZstd:
                throw ServerSays(reason: "\(frame.kind)")
            }
            missing -= Int(frame.run.count)
        }
        return answer
    }

    /// Sends a lane frame.
    package func send(_ frame: LaneFrame) throws {
        var bytes = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        bytes.withUnsafeMutableBytes { if let base = $0.baseAddress { frame.encode(into: base) } }
        try send(bytes)
    }

    /// Receives a lane frame without the bytes that follow it; nil if the server has closed.
    package func receiveFrame() throws -> LaneFrame? {
        var bytes = [UInt8](repeating: 0, count: LaneFrame.encodedByteCount)
        let count = try bytes.withUnsafeMutableBytes { try receive(exactly: $0) }
        guard count == bytes.count else { return nil }
        return try LaneFrame.decode(bytes.span.bytes)
    }
}

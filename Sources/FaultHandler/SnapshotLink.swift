import Connections
import LinuxSystem
import PageProtocol

/// A session with a snapshot's server.
struct SnapshotLink: Sendable {
    /// What the server says its file is.
    let snapshot: SnapshotIdentity
    let lanes: Lanes
    private let control: ControlLane
    private let events: Mailbox<ControlLane.Event>

    /// Connects, and asks for slices of the server's file.
    ///
    /// - Parameter expected: what the file must be; nil if it may be any.
    /// - Throws: ``SnapshotRefused`` if the server has another file than is needed; anything else may pass.
    init(
        to address: SocketAddress,
        slices: [SnapshotSlice],
        expecting expected: SnapshotIdentity?,
        urgentLanes: Int,
        peerTimeout: Duration
    ) throws {
        let events = try Mailbox<ControlLane.Event>()
        let control = try ControlLane(
            StreamSocket(connectingTo: address, timeout: StreamSocket.shortTimeout),
            peerTimeout: peerTimeout
        ) { events.put($0) }
        let hello = Hello(
            role: .destination,
            urgentLanes: urgentLanes,
            capabilities: .startResult,
            migration: .random(),
            instance: .random(),
            nonce: .zero,
            lease: .absent
        )
        try control.send(.hello(hello))
        let answer = try SnapshotLink.answer(events)
        guard case .hello(let hello) = answer, hello.role == .source else {
            throw LinkLost(reason: "\(control.peer) is no snapshot's server: it sent \(answer.kind)")
        }
        try control.send(.slices(slices))
        switch try SnapshotLink.answer(events) {
        case .snapshot(let snapshot):
            guard expected ?? snapshot == snapshot else {
                throw SnapshotRefused(reason: "\(address) serves another file than before")
            }
            self.snapshot = snapshot
        case .refused(let reason): throw SnapshotRefused(reason: reason)
        case let other: throw LinkLost(reason: "\(control.peer) sent \(other.kind) instead of SNAPSHOT")
        }
        control.allowSilence()
        lanes = try Lanes(to: address, as: hello, urgentLanes: urgentLanes)
        self.control = control
        self.events = events
    }

    private static func answer(_ events: Mailbox<ControlLane.Event>) throws -> ControlMessage {
        switch events.next() {
        case .message(.failure(let reason), _): throw LinkLost(reason: "the server says: \(reason)")
        case .message(let message, _): return message
        case .lost(let reason), .silent(let reason): throw LinkLost(reason: reason)
        case nil: throw LinkLost(reason: "nothing came")
        }
    }

    /// Blocks until the link is lost or closed, and says why.
    func waitForLoss() -> String {
        while true {
            switch events.next() {
            case .message(.failure(let reason), _), .message(.refused(let reason), _):
                return "the server says: \(reason)"
            case .message(let message, _): return "the server sent \(message.kind), which it never sends here"
            case .lost(let reason), .silent(let reason): return reason
            case nil: continue
            }
        }
    }

    /// Ends the session.
    func close() {
        // It has no bounds to break.
        try? control.send(.bye)
        control.finish()
    }
}

/// The server has not what the guest needs, and will not have it.
struct SnapshotRefused: Error, CustomStringConvertible {
    let reason: String
    var description: String { "the server refuses: \(reason)" }
}

/// The link is lost; another may be had.
struct LinkLost: Error, CustomStringConvertible {
    let reason: String
    var description: String { reason }
}

import Connections
import Identity
import LinuxSystem
import PageProtocol

/// A session with a snapshot server.
struct SnapshotLink: Sendable {
    /// The identity of the server's snapshot when the session began.
    let snapshot: SnapshotIdentity
    let urgent: [SharedSocket]
    let bulk: SharedSocket?
    private let control: ControlDialogue

    /// How a session has ended.
    enum End {
        /// The link broke or was closed; a new one may succeed.
        case lost(reason: String)
        /// The server can no longer serve the snapshot.
        case refused(SnapshotRefused)
    }

    /// Connects to a server, and asks for slices of the server's file.
    ///
    /// - Parameters:
    ///   - expected: the identity of the snapshot that the guest needs; nil if any snapshot is accepted.
    ///   - asksAhead: whether pages will be requested on the bulk lane, which there is only then.
    /// - Throws: ``SnapshotRefused`` if the server does not prove that its snapshot is the one that the guest needs. Any
    ///   other error is worth a retry, ``TurnedAway`` too.
    init(
        to address: SocketAddress,
        slices: [SnapshotSlice],
        expecting expected: SnapshotIdentity?,
        urgentLanes: Int,
        asksAhead: Bool,
        peerTimeout: Duration
    ) throws {
        let control = try ControlDialogue(
            StreamSocket(connectingTo: address, timeout: StreamSocket.shortTimeout),
            peerTimeout: peerTimeout
        )
        let patience = max(.seconds(10), peerTimeout)
        let hello = Hello(
            role: .destination,
            urgentLanes: urgentLanes,
            capabilities: asksAhead ? [.startResult, .snapshotProof] : [.startResult, .snapshotProof, .urgentOnly],
            migration: .random(),
            instance: .random(),
            nonce: .zero,
            lease: .absent
        )
        try control.send(.hello(hello))
        let welcome = try SnapshotLink.requireServer(control.answer(within: patience), control.peer)
        try control.send(.slices(slices))
        switch try control.answer(within: patience) {
        case .snapshot(let snapshot):
            if let reason = expected?.objection(to: snapshot) { throw SnapshotRefused(reason: "\(address) \(reason)") }
            self.snapshot = snapshot
        case .refused(let reason): throw SnapshotRefused(reason: reason)
        case .failure(let reason): throw LinkLost(reason: "the server reports: \(reason)")
        case let other: throw LinkLost(reason: "\(control.peer) sent \(other.kind) instead of SNAPSHOT")
        }
        urgent = try Lanes.join(.urgent, count: urgentLanes, to: address, as: welcome, peerTimeout: peerTimeout)
        bulk = asksAhead ? try Lanes.join(.bulk, to: address, as: welcome, peerTimeout: peerTimeout) : nil
        self.control = control
    }

    /// Returns the HELLO of a snapshot's server.
    ///
    /// - Parameters:
    ///   - answer: the peer's answer to HELLO.
    ///   - peer: the address of the peer, as text.
    private static func requireServer(_ answer: ControlMessage, _ peer: String) throws -> Hello {
        switch answer {
        case .hello(let hello) where hello.role == .source:
            guard hello.capabilities.contains(.snapshotProof) else {
                throw LinkLost(
                    reason: "\(peer) is of a release that does not prove which snapshot it serves; "
                        + "run the same pageferry release on both hosts"
                )
            }
            return hello
        case .refused(let reason): throw TurnedAway(reason: reason)
        case .failure(let reason): throw LinkLost(reason: "the server reports: \(reason)")
        default: throw LinkLost(reason: "\(peer) is not a snapshot server: it sent \(answer.kind)")
        }
    }

    /// Blocks until the link has ended.
    ///
    /// - Parameter onRenewal: called each time the server tells a new identity of its snapshot.
    func waitForEnd(onRenewal: (SnapshotIdentity) -> Void) -> End {
        while true {
            do {
                switch try control.next() {
                case .snapshot(let snapshot): onRenewal(snapshot)
                case .refused(let reason): return .refused(SnapshotRefused(reason: reason))
                case .failure(let reason): return .lost(reason: "the server reports: \(reason)")
                case .some(let message):
                    return .lost(reason: "the server sent \(message.kind), which it never sends here")
                case nil: return .lost(reason: "the link was closed")
                }
            } catch {
                return .lost(reason: "\(error)")
            }
        }
    }

    /// Ends the session, from any thread.
    func close() { control.close() }
}

extension SnapshotIdentity {
    /// The reason to take no page from a server of another identity, to follow the server's address; nil to take them.
    func objection(to other: SnapshotIdentity) -> String? {
        switch matches(other) {
        case .same: nil
        case .other: "serves another file than before"
        case .unproven:
            "does not prove that it serves the same file as before, which was copied, or changed while it was not "
                + "served; with --full-digest, a server proves its file by content"
        }
    }
}

/// A server's refusal: its snapshot is not the one that the guest needs.
struct SnapshotRefused: Error, CustomStringConvertible {
    let reason: String
    var description: String { "the server refuses: \(reason)" }
}

/// The refusal of a server that takes no session now, for example because all of its connections are in use.
///
/// The server is there, and says nothing against the guest's snapshot.
struct TurnedAway: Error, CustomStringConvertible {
    let reason: String
    var description: String { "the server refuses: \(reason)" }
}

/// The loss of a link, after which a new one may succeed.
struct LinkLost: Error, CustomStringConvertible {
    let reason: String
    var description: String { reason }
}

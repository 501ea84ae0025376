/// The error of a lane that the peer closed.
package struct LaneClosed: Error, CustomStringConvertible {
    /// The name of the peer.
    package let peer: String

    package init(peer: String) {
        self.peer = peer
    }

    /// One line for a person.
    package var description: String { "\(peer) closed the connection" }
}

/// The error of a frame that a receiver on a lane never expects.
package struct UnexpectedFrame: Error, CustomStringConvertible {
    /// The header of the frame.
    package let frame: LaneFrame
    /// The role of the peer, which never sends such a frame.
    package let sender: PeerRole

    package init(frame: LaneFrame, from sender: PeerRole) {
        self.frame = frame
        self.sender = sender
    }

    /// One line for a person.
    package var description: String {
        "the peer sent \(frame.kind) with a \(frame.run), which a \(sender) never sends"
    }
}

import Connections
import LinuxSystem
import PageProtocol
import SourceAgent

/// One destination, from its HELLO to its end.
struct SnapshotSession {
    /// A connection that a destination makes beside the control connection.
    struct LaneName: Hashable {
        let lane: Lane
        let index: Int
    }

    let hello: Hello
    let nonce: Nonce
    let control: ControlLane
    /// Nil until the destination has said which slices of the file it wants.
    var agent: SnapshotAgent?
    /// The lanes that have not joined.
    var awaited: Set<LaneName>
    /// One of its lanes has broken.
    var hasLostLane = false
    /// When it came.
    let begin = ContinuousClock.now
    /// It has been told that it is over, and its connections are being closed.
    var isEnding = false

    init(_ hello: Hello, nonce: Nonce, control: ControlLane) {
        self.hello = hello
        self.nonce = nonce
        self.control = control
        awaited = Set((0..<hello.urgentLanes).map { LaneName(lane: .urgent, index: $0) })
        awaited.insert(LaneName(lane: .bulk, index: 0))
    }

    /// Connections that the sender of a HELLO is to have: control, bulk and its urgent ones.
    static func connectionCount(of hello: Hello) -> Int { 2 + hello.urgentLanes }

    /// What it was sent, in words.
    var figures: String {
        guard let progress = agent?.progress else { return "it asked for nothing" }
        return "\(progress.requests) requests, \(progress.pages) pages, \(progress.zeroPages) of them zeros, "
            + "\(progress.bytes) bytes"
    }
}

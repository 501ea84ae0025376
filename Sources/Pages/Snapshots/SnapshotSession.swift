import Connections
import Identity
import LinuxSystem
import PageProtocol
import PageServer

/// The state of one destination, from HELLO until its connections are closed.
struct SnapshotSession {
    /// The name of a lane, which is a connection that a destination makes beside the control connection.
    struct LaneName: Hashable {
        let lane: Lane
        let index: Int
    }

    let hello: Hello
    let nonce: Nonce
    let link: ControlLink
    let origin: PeerOrigin
    /// The page server of this destination; nil until the destination has sent SLICES.
    var pageServer: SnapshotPageServer?
    /// The lanes that have not joined yet.
    var awaited: Set<LaneName>
    /// The number of requests at the latest check, and when that number had changed, in nanoseconds of
    /// `MonotonicClock`.
    private(set) var asked = (requests: 0, since: MonotonicClock.now())
    /// Whether the destination was notified of the session's end, and its connections are being closed.
    var isEnding = false

    init(_ hello: Hello, nonce: Nonce, link: ControlLink, from origin: PeerOrigin) {
        self.hello = hello
        self.nonce = nonce
        self.link = link
        self.origin = origin
        awaited = Set((0..<hello.urgentLanes).map { LaneName(lane: .urgent, index: $0) })
        if !hello.capabilities.contains(.urgentOnly) { awaited.insert(LaneName(lane: .bulk, index: 0)) }
    }

    /// The number of connections that the sender of `hello` makes: control, bulk and its urgent lanes.
    static func connectionCount(of hello: Hello) -> Int {
        (hello.capabilities.contains(.urgentOnly) ? 1 : 2) + hello.urgentLanes
    }

    /// Checks whether the destination has requested pages since the latest check.
    mutating func noteRequests() {
        let requests = pageServer?.progress.requests ?? 0
        if requests != asked.requests { asked = (requests, MonotonicClock.now()) }
    }

    /// The requests and the pages sent, in words for the log.
    var figures: String {
        guard let progress = pageServer?.progress else { return "no requests" }
        return "\(progress.requests) requests, \(progress.pages) pages, \(progress.zeroPages) of them zeros, "
            + "\(progress.bytes) bytes"
    }
}

import LinuxSystem
import PageProtocol
import Synchronization

/// The urgent and bulk connections to one source: they end together.
final class LaneSockets: Sendable {
    private let urgent: [SharedSocket]
    private let bulk: SharedSocket
    /// Set before the sockets are shut down. Relaxed: whoever reads it late works a little longer.
    private let isShutDown = Atomic<Bool>(false)
    /// Threads that have not turned to their urgent lanes yet.
    private let awaited: Atomic<Int>

    init(urgent: [SharedSocket], bulk: SharedSocket) {
        self.urgent = urgent
        self.bulk = bulk
        awaited = Atomic(urgent.count)
    }

    /// Notes that a thread has turned to its urgent lane.
    ///
    /// - Returns: whether it is the last: what the others have read before they turned is seen by it, and what they read
    ///   from now on they ask for on these lanes.
    fileprivate func isLastToTurn() -> Bool {
        awaited.subtract(1, ordering: .acquiringAndReleasing).newValue == 0
    }

    fileprivate var hasEnded: Bool { isShutDown.load(ordering: .relaxed) }

    func shutdown() {
        isShutDown.store(true, ordering: .relaxed)
        for socket in urgent { socket.stream.shutdown() }
        bulk.stream.shutdown()
    }

    /// The bulk lane.
    var bulkLane: AttachedLane { AttachedLane(lane: .bulk, socket: bulk, link: self) }

    /// The urgent lane of a fault thread.
    func urgentLane(_ index: Int) -> AttachedLane { AttachedLane(lane: .urgent, socket: urgent[index], link: self) }
}

/// One of the connections to a source.
struct AttachedLane: Sendable {
    let lane: Lane
    let socket: SharedSocket
    private let link: LaneSockets

    fileprivate init(lane: Lane, socket: SharedSocket, link: LaneSockets) {
        self.lane = lane
        self.socket = socket
        self.link = link
    }

    /// Ends all connections to the source.
    func shutdown() { link.shutdown() }

    /// Whether the connections to the source were ended from this side.
    var hasEnded: Bool { link.hasEnded }

    /// Notes that the lane's thread has turned to it, once.
    ///
    /// - Returns: whether all threads of the link have.
    func isLastToTurn() -> Bool { link.isLastToTurn() }
}

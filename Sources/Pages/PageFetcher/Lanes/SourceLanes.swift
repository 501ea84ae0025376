import Compression
import LinuxSystem
import PageProtocol
import Synchronization

/// The urgent and bulk connections to one source, which are shut down together.
final class SourceLanes: Sendable {
    private let urgent: [SharedSocket]
    private let bulk: [SharedSocket]
    fileprivate let tell: @Sendable (PageFetcher.LaneEvent) -> Void
    /// Whether the source answers AHEAD_REQUEST.
    fileprivate let answersAhead: Bool
    /// The codecs of compressed pages that the source may use.
    fileprivate let codecs: Set<Codec>
    /// Whether the sockets are shut down; set before they are.
    ///
    /// Relaxed: a thread that reads an old value only works a little longer.
    private let isShutDown = Atomic<Bool>(false)
    /// The number of threads that have not switched to their urgent lanes yet.
    private let awaited: Atomic<Int>

    init(
        urgent: [SharedSocket],
        bulk: [SharedSocket],
        answersAhead: Bool,
        inflating codecs: Set<Codec> = [],
        telling tell: @escaping @Sendable (PageFetcher.LaneEvent) -> Void
    ) {
        self.answersAhead = answersAhead
        self.codecs = codecs
        self.urgent = urgent
        self.bulk = bulk
        self.tell = tell
        awaited = Atomic(urgent.count)
    }

    /// Records that a thread has switched to its urgent lane.
    ///
    /// - Returns: whether this thread is the last to switch. The last thread sees every request that the others made
    ///   before they switched; from then on the others send requests on these lanes.
    fileprivate func isLastToTurn() -> Bool {
        awaited.subtract(1, ordering: .acquiringAndReleasing).newValue == 0
    }

    fileprivate var hasEnded: Bool { isShutDown.load(ordering: .relaxed) }

    func shutdown() {
        isShutDown.store(true, ordering: .relaxed)
        for socket in urgent + bulk { socket.stream.shutdown() }
    }

    /// The bulk lanes.
    var bulkLanes: [AttachedLane] {
        bulk.enumerated().map { AttachedLane(lane: .bulk, index: $0, socket: $1, link: self) }
    }

    /// The urgent lane of the fault thread with this index.
    func urgentLane(_ index: Int) -> AttachedLane {
        AttachedLane(lane: .urgent, index: index, socket: urgent[index], link: self)
    }
}

/// One of the connections to a source.
struct AttachedLane: Sendable {
    let lane: Lane
    /// The index among the lanes of its kind.
    let index: Int
    let socket: SharedSocket
    private let link: SourceLanes

    fileprivate init(lane: Lane, index: Int, socket: SharedSocket, link: SourceLanes) {
        self.lane = lane
        self.index = index
        self.socket = socket
        self.link = link
    }

    /// Delivers an event to the closure that `attach` received.
    func tell(_ event: PageFetcher.LaneEvent) { link.tell(event) }

    /// Shuts down all connections to the source.
    func shutdown() { link.shutdown() }

    /// Whether the source answers AHEAD_REQUEST.
    var answersAhead: Bool { link.answersAhead }

    /// Whether the source may compress pages with a codec.
    func takes(_ codec: Codec) -> Bool { link.codecs.contains(codec) }

    /// Whether this side has shut down the connections to the source.
    var hasEnded: Bool { link.hasEnded }

    /// Records that the lane's thread has switched to the lane; called once.
    ///
    /// - Returns: whether every thread of the link has switched.
    func isLastToTurn() -> Bool { link.isLastToTurn() }
}

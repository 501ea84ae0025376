package import Compression
package import LinuxSystem
package import PageProtocol
import Synchronization
package import Telemetry

/// Answers requests for a stopped workload's pages on the urgent lanes, and pushes the other pages on the bulk lanes.
///
/// The agent never decides who runs the workload. It reads the memory only after ``freeze()``: an earlier request
/// breaks the protocol.
package final class PageServer: Sendable {
    /// The names of the agent's threads, as `top -H` shows them.
    package static let threadNames = [urgentThread, bulkThread]
    private static let urgentThread = "urgent-serve"
    private static let bulkThread = "bulk-push"

    /// An event of the agent, delivered from one of its threads.
    package enum Event: Sendable {
        /// Every page has been sent at least once.
        case everyPageSent
        /// Sent memory could not be released to the kernel, and stays allocated.
        case notReleased(reason: String)
        /// A lane broke, or the peer broke the protocol on it; the agent serves that lane no longer.
        case laneLost(Lane, reason: String)
        /// A page that the destination lacks cannot be read, because its process has ended or has taken it away; the
        /// agent serves these lanes no longer.
        ///
        /// Each thread that needs such a page reports it.
        case memoryLost(reason: String)

        /// The event for the error that ended the service of a lane.
        static func end(of lane: Lane, _ error: any Error) -> Event {
            if let lost = error as? MemoryLost {
                .memoryLost(reason: lost.reason)
            } else {
                .laneLost(lane, reason: "\(error)")
            }
        }
    }

    /// The amounts that the agent has sent so far.
    package struct Progress: Hashable, Sendable {
        /// Pages in all regions.
        package var pagesTotal = 0
        /// Pages sent at least once, including zero pages.
        package var pagesSent = 0
        /// Pages that were sent as zeros, without bytes; like the three counts below, this one never falls: a page that
        /// is sent again after a link broke counts again.
        package var zeroPages = 0
        /// Pages that were sent on request, with their bytes or as zeros.
        package var requestedPages = 0
        /// Pages that were pushed with their bytes.
        package var pushedPages = 0
        /// Pages that were pushed as zeros.
        package var pushedZeroPages = 0
        /// Requests answered on the urgent lanes.
        package var requests = 0
        /// Bytes of pages sent, on all lanes; compressed pages count as they were sent.
        package var bytesSent = 0
        /// Bytes of all regions.
        package var bytesTotal = 0
        /// Bytes of pages that have not been sent yet.
        package var bytesLeft = 0
        /// What the push has compressed.
        package var compressed = Compressed()
    }

    let memory: SentMemory
    private let polling: Duration
    private let compression: PushCompression
    private let onEvent: @Sendable (Event) -> Void
    private let lanes = Mutex<RunningLanes?>(nil)
    /// The threads of the current lanes, and of earlier lanes whose threads have not exited yet.
    private let threads = ThreadGroup()
    /// Serializes calls of ``resend(allBut:after:telling:)``.
    private let resending = Mutex<Void>(())
    private let hangUpCount = Atomic<Int>(0)

    /// The number of times that lanes were ended, which shows whether a link has broken since an earlier value.
    package var hangUps: Int { hangUpCount.load(ordering: .acquiring) }

    /// The sockets of one connection to a destination.
    private struct RunningLanes {
        let sockets: DestinationLanes
        let codecs: [Codec]
        let onEvent: @Sendable (Event) -> Void
        var pushes = false
    }

    /// Makes an agent for a workload's regions.
    ///
    /// - Parameters:
    ///   - regions: the memory, in the order of the announcement.
    ///   - table: the announced regions.
    ///   - releasesMemory: whether ``releaseSentMemory()`` will be called.
    ///   - polling: the longest time that the thread of an urgent lane polls for the next request before the thread
    ///     sleeps; zero to never poll.
    ///   - compression: how pushed pages are compressed, by codecs that the destination inflates.
    ///   - grid: counts the pages by their place, for the regions in their order; nil to count none.
    ///   - onEvent: called from the agent's threads; must not block.
    package init(
        regions: [SourceRegion],
        table: RegionTable,
        releasesMemory: Bool = false,
        polling: Duration = PollBudget.usualLimit,
        compression: PushCompression = .none,
        grid: PageGrid? = nil,
        onEvent: @escaping @Sendable (Event) -> Void
    ) throws(SystemError) {
        let release = releasesMemory ? try MemoryRelease(regions) { onEvent(.notReleased(reason: $0)) } : nil
        memory = try SentMemory(regions: regions, table: table, release: release, grid: grid)
        self.polling = polling
        self.compression = compression
        self.onEvent = onEvent
    }

    /// Starts to answer requests on the lanes of a connection, which replace earlier lanes.
    ///
    /// Before ``freeze()``, only probes are answered.
    ///
    /// - Parameters:
    ///   - urgent: the urgent lanes, one per fault-serving thread of the destination; each gets a thread of its own.
    ///   - bulk: the bulk lanes, at least one; each gets a thread of its own once the push starts.
    ///   - codecs: the codecs that the destination inflates.
    ///   - tell: called with the events of these lanes in place of the agent's `onEvent`, so that the caller can tell
    ///     them from events of earlier lanes.
    package func attach(
        urgent: [SharedSocket],
        bulk: [SharedSocket],
        inflating codecs: Set<Codec> = [],
        telling tell: (@Sendable (Event) -> Void)? = nil
    ) throws(SystemError) {
        let sockets = DestinationLanes(urgent: urgent, bulk: bulk)
        let onEvent = tell ?? onEvent
        let earlier = lanes.withLock { lanes in
            defer {
                lanes = RunningLanes(sockets: sockets, codecs: compression.codecs(of: codecs), onEvent: onEvent)
            }
            return lanes
        }
        earlier?.sockets.shutdown()
        memory.pushLimit.lift(false)
        do throws(SystemError) {
            for (lane, socket) in urgent.enumerated() {
                try threads.run(PageServer.urgentThread, pace: .urgent) { [memory, polling] in
                    do {
                        var service = RequestService(socket, lane: lane, memory: memory, polling: polling)
                        // The lane has no receive timeout, so the call returns by an error only.
                        _ = try service.run { onEvent(.everyPageSent) }
                    } catch {
                        // Reported before the other lane ends because of this error: the first reason reported is the
                        // true one.
                        onEvent(.end(of: .urgent, error))
                        sockets.shutdown()
                    }
                }
            }
        } catch {
            hangUp()
            throw error
        }
    }

    /// Lets requests be answered: the workload is stopped, and its memory does not change any more.
    package func freeze() {
        memory.isFrozen.store(true, ordering: .releasing)
    }

    /// Ends the lanes and waits for their threads, so that no page is sent and the workload may run here again.
    package func thaw() {
        detach()
        memory.isFrozen.store(false, ordering: .releasing)
        memory.release?.end()
    }

    /// Starts to release sent memory to the kernel, since the workload runs elsewhere and needs it here no longer.
    package func releaseSentMemory() {
        precondition(memory.release != nil, "the agent was not made to release memory")
        memory.release?.begin()
    }

    /// Starts to push every unsent page, beginning after the newest request.
    ///
    /// A second call for the same lanes, or a call before ``freeze()``, does nothing.
    package func startPush() throws(SystemError) {
        guard memory.isFrozen.load(ordering: .acquiring) else { return }
        try lanes.withLock { (lanes) throws(SystemError) in
            guard let running = lanes, !running.pushes else { return }
            lanes?.pushes = true
            let (sockets, codecs, onEvent) = (running.sockets, running.codecs, running.onEvent)
            let cursor = PushCursor(memory: memory, lanes: sockets.bulk.count)
            for lane in sockets.bulk.indices {
                do throws(SystemError) {
                    try threads.run(PageServer.bulkThread, pace: .background) { [memory, compression] in
                        var push = BulkPush(
                            lane: lane,
                            cursor: cursor,
                            memory: memory,
                            sockets: sockets,
                            compressing: codecs,
                            choosesCodec: compression == .auto,
                            onEvent: onEvent
                        )
                        push.run()
                    }
                } catch {
                    guard lane > 0 else { throw error }
                    // The lanes whose threads run push everything.
                    for idle in lane..<sockets.bulk.count { BulkPush.finish(idle, cursor, memory, onEvent) }
                    return
                }
            }
        }
    }

    /// Limits the push to this many bytes of pages per second, as they are sent; 0 means no limit.
    ///
    /// Answers to requests are never limited.
    package func limitPush(bytesPerSecond: Int) {
        memory.pushLimit.set(bytesPerSecond: bytesPerSecond)
    }

    /// Shuts the lanes down without waiting for their threads.
    package func hangUp() {
        hangUpCount.add(1, ordering: .acquiringAndReleasing)
        // Shutting down wakes threads that wait for the peer, and lifting the limit wakes a thread that rests.
        lanes.withLock { $0.take() }?.sockets.shutdown()
        memory.pushLimit.lift(true)
    }

    /// Ends the lanes and waits for their threads.
    package func detach() {
        hangUp()
        threads.join()
    }

    /// Ends the lanes, waits for their threads, and marks every page that was not received as unsent.
    ///
    /// Pages that were sent but not received were in flight when the lanes broke.
    ///
    /// - Parameters:
    ///   - received: for each region, one bit per page that the destination has, as `PageBitmap.bytes(of:)` returns
    ///     them.
    ///   - hangUps: the value of ``hangUps`` when the link over which `received` came was made; nil to skip the check.
    ///   - tell: called with ``Event/everyPageSent`` if nothing has to be sent again, in place of the agent's
    ///     `onEvent`.
    /// - Returns: the number of pages that were neither received nor kept: their memory was released, so they are lost.
    ///   If it is not 0, no page is marked. Nil, with nothing changed, if the link has broken since `hangUps` was read.
    package func resend(
        allBut received: [[UInt8]],
        after hangUps: Int? = nil,
        telling tell: (@Sendable (Event) -> Void)? = nil
    ) -> Int? {
        let lost = resending.withLock { _ -> Int? in
            if let hangUps, hangUps != self.hangUps { return nil }
            detach()
            let lost = memory.release?.pagesLost(receiving: received) ?? 0
            if lost == 0 { memory.assign(received) }
            return lost
        }
        guard lost == 0 else { return lost }
        if memory.completesNow() { (tell ?? onEvent)(.everyPageSent) }
        return 0
    }

    /// Ends the lanes, waits for their threads, and releases all memory: the workload runs elsewhere and has every
    /// page.
    package func discardMemory() throws(SystemError) {
        detach()
        for region in memory.regions { try region.discard(0..<region.pageCount) }
    }

    /// Where the pages of each kind lie; nil if they are not counted by their place.
    package var map: LiveMap? {
        memory.grid?.map(present: { memory.sent[$1].count(in: $0) }, asked: { _, _ in 0 })
    }

    /// The bytes of pages that each lane has carried.
    package var laneBytes: [LaneBytes.Lane] { memory.laneBytes.lanes }

    /// The amounts sent so far.
    package var progress: Progress {
        Progress(
            pagesTotal: memory.pagesTotal,
            pagesSent: memory.pagesSent,
            zeroPages: memory.zeroPages.load(ordering: .relaxed),
            requestedPages: memory.requestedPages.load(ordering: .relaxed),
            pushedPages: memory.pushedPages.load(ordering: .relaxed),
            pushedZeroPages: memory.pushedZeroPages.load(ordering: .relaxed),
            requests: memory.requests.load(ordering: .relaxed),
            bytesSent: memory.bytesSent.load(ordering: .relaxed),
            bytesTotal: memory.regions.reduce(0) { $0 + $1.byteCount },
            bytesLeft: memory.bytesLeft,
            compressed: memory.compression.progress
        )
    }
}

public import LinuxSystem
public import PageProtocol
import Synchronization

/// Answers requests for a stopped workload's pages on the urgent lane, and pushes the rest on the bulk lane.
///
/// It never decides who runs, and it reads the memory only after ``freeze()``: until then a request is a fault of the
/// peer's.
public final class SourceAgent: Sendable {
    /// What the agent tells, each from a thread of its own.
    public enum Event: Sendable {
        /// Every page has been sent at least once.
        case everyPageSent
        /// Memory that was sent could not be given back to the kernel, and stays.
        case notReleased(reason: String)
        /// A lane broke, or its peer broke the protocol. The agent serves nothing more on it.
        case laneLost(Lane, reason: String)
    }

    /// What the agent has sent so far.
    public struct Progress: Hashable, Sendable {
        /// Pages in all regions.
        public var pagesTotal = 0
        /// Pages sent at least once, zero pages among them.
        public var pagesSent = 0
        /// Those of them that were sent as zeros, without bytes.
        public var zeroPages = 0
        /// Requests answered on the urgent lane.
        public var requests = 0
        /// Bytes of pages sent, on both lanes.
        public var bytesSent = 0
    }

    let memory: SentMemory
    private let onEvent: @Sendable (Event) -> Void
    private let lanes = Mutex<RunningLanes?>(nil)
    /// Those of the present lanes, and of earlier ones that have not ended yet.
    private let threads = ThreadGroup()
    /// Held while it is settled what was in flight.
    private let resending = Mutex<Void>(())
    private let hangUpCount = Atomic<Int>(0)

    /// How often lanes were ended: tells a link that stands from one that has broken since.
    public var hangUps: Int { hangUpCount.load(ordering: .acquiring) }

    /// The sockets of one connection to a destination.
    private struct RunningLanes {
        let sockets: LaneSockets
        let onEvent: @Sendable (Event) -> Void
        var pushes = false
    }

    /// Makes an agent for a workload's regions.
    ///
    /// - Parameters:
    ///   - regions: the memory, in the order of the announcement.
    ///   - table: the announced regions.
    ///   - releasesMemory: whether ``releaseSentMemory()`` will be called.
    ///   - onEvent: called from the agent's threads; must not block.
    public init(
        regions: [MemoryRegion],
        table: RegionTable,
        releasesMemory: Bool = false,
        onEvent: @escaping @Sendable (Event) -> Void
    ) throws(SystemError) {
        let release = releasesMemory ? try MemoryRelease(regions) { onEvent(.notReleased(reason: $0)) } : nil
        memory = try SentMemory(regions: regions, table: table, release: release)
        self.onEvent = onEvent
    }

    /// Starts to answer on the lanes of a connection, in place of those before. Until ``freeze()`` only probes are
    /// answered.
    ///
    /// - Parameters:
    ///   - urgent: those of the destination's threads that serve faults; each is answered by a thread of its own.
    ///   - tell: told of these lanes, instead of the agent's own `onEvent`, so that their events are told from those of
    ///     earlier lanes.
    public func attach(
        urgent: [SharedSocket],
        bulk: SharedSocket,
        telling tell: (@Sendable (Event) -> Void)? = nil
    ) throws(SystemError) {
        let sockets = LaneSockets(urgent: urgent, bulk: bulk)
        let onEvent = tell ?? onEvent
        let earlier = lanes.withLock { lanes in
            defer { lanes = RunningLanes(sockets: sockets, onEvent: onEvent) }
            return lanes
        }
        earlier?.sockets.shutdown()
        memory.pushLimit.lift(false)
        do throws(SystemError) {
            for socket in urgent {
                try threads.run("urgent-serve", pace: .urgent) { [memory] in
                    do {
                        var service = RequestService(socket, memory: memory)
                        try service.run { onEvent(.everyPageSent) }
                    } catch {
                        // Told before the other lane ends because of it: the first reason is the true one.
                        onEvent(.laneLost(.urgent, reason: "\(error)"))
                        sockets.shutdown()
                    }
                }
            }
        } catch {
            hangUp()
            throw error
        }
    }

    /// From now on the workload is stopped and its memory does not change: requests are answered.
    public func freeze() {
        memory.isFrozen.store(true, ordering: .releasing)
    }

    /// Ends the lanes and waits for their threads: the workload may run here again, and no page is sent any more.
    public func thaw() {
        detach()
        memory.isFrozen.store(false, ordering: .releasing)
        memory.release?.end()
    }

    /// From now on memory that has been sent is given back to the kernel: nobody needs it here any more.
    public func releaseSentMemory() {
        precondition(memory.release != nil, "the agent was not made to release memory")
        memory.release?.begin()
    }

    /// Starts to push every page that has not been sent, on from behind the newest request; once on each connection, and
    /// not before ``freeze()``.
    public func startPush() throws(SystemError) {
        guard memory.isFrozen.load(ordering: .acquiring) else { return }
        try lanes.withLock { (lanes) throws(SystemError) in
            guard let running = lanes, !running.pushes else { return }
            lanes?.pushes = true
            try threads.run("bulk-push", pace: .background) { [memory] in
                var push = BulkPush(memory: memory, sockets: running.sockets, onEvent: running.onEvent)
                push.run()
            }
        }
    }

    /// From now on pushes at most this many bytes of pages a second; 0 is as many as the network takes.
    ///
    /// Requests are answered at once all the same.
    public func limitPush(bytesPerSecond: Int) {
        memory.pushLimit.set(bytesPerSecond: bytesPerSecond)
    }

    /// Ends the lanes, and returns at once.
    public func hangUp() {
        hangUpCount.add(1, ordering: .acquiringAndReleasing)
        // So that no thread waits for the peer, nor for its turn.
        lanes.withLock { $0.take() }?.sockets.shutdown()
        memory.pushLimit.lift(true)
    }

    /// Ends the lanes and waits for their threads.
    public func detach() {
        hangUp()
        threads.join()
    }

    /// Ends the lanes and waits for their threads. From then on, what was not received counts as not sent: it was in flight
    /// when the lanes broke.
    ///
    /// - Parameters:
    ///   - received: a bit a page for each region, as ``PageBitmap/bytes(of:)`` gives them.
    ///   - hangUps: ``hangUps`` when the link was made that `received` came by; nil for any.
    ///   - tell: told if nothing is to be sent again, as in ``attach(urgent:bulk:telling:)``.
    /// - Returns: pages that were not received and have been given back to the kernel: they are gone. If there are any,
    ///   nothing else has changed. Nil, and nothing has changed, if the link has broken meanwhile.
    public func resend(
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

    /// Ends the lanes, waits for their threads, and gives all of the memory back to the kernel: the workload runs elsewhere,
    /// with every page.
    public func discardMemory() throws(SystemError) {
        detach()
        for region in memory.regions { try region.discard(0..<region.pageCount) }
    }

    /// What has been sent so far.
    public var progress: Progress {
        Progress(
            pagesTotal: memory.pagesTotal,
            pagesSent: memory.pagesSent,
            zeroPages: memory.zeroPages.load(ordering: .relaxed),
            requests: memory.requests.load(ordering: .relaxed),
            bytesSent: memory.bytesSent.load(ordering: .relaxed)
        )
    }
}

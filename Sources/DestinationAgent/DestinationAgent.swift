public import LinuxSystem
public import PageProtocol
import Synchronization
public import Telemetry

/// Serves the faults of a guest's memory: asks the source for each page that is touched and places what arrives.
///
/// It never decides who runs. The fault service lives as long as pages are missing; lanes come and go beneath it.
public final class DestinationAgent: Sendable {
    /// What the agent tells, each from a thread of its own.
    public enum Event: Sendable {
        /// Every page has been placed.
        case everyPageResident
        /// A lane broke, or its peer broke the protocol. Faults wait until other lanes are attached.
        case laneLost(Lane, reason: String)
        /// Faults can be served no more: the memory's process is gone, or no memory is left.
        case failed(reason: String)
    }

    /// What has arrived so far.
    public struct Progress: Hashable, Sendable {
        /// Pages in all regions.
        public var pagesTotal = 0
        /// Pages placed.
        public var pagesResident = 0
        /// Pages placed because somebody waited for them.
        public var demand = 0
        /// Pages placed because somebody was expected to touch them.
        public var prefetched = 0
        /// Those of them that nothing shows to have been used.
        public var prefetchedUnused = 0
        /// Pages placed out of the push, with bytes.
        public var pushed = 0
        /// Pages placed out of the push as known zeros.
        public var zero = 0
        /// Pages that came again after they had been placed.
        public var duplicate = 0
        /// Pages that somebody waits for now.
        public var waiting = 0

        /// Nothing yet.
        public init() {}
    }

    /// Who asks for the pages that are touched.
    private enum Faults: Sendable {
        case service(FaultService)
        case inThread(InThreadFaults)

        func use(_ lanes: LaneSockets?) {
            switch self {
            case .service(let service): service.use(lanes)
            case .inThread(let faults): faults.use(lanes)
            }
        }
    }

    let memory: ArrivingMemory
    private let faults: Faults
    private let threads = Mutex(Threads())
    private let onEvent: @Sendable (Event) -> Void

    private struct Threads: ~Copyable {
        var faults: JoinedThread?
        var lanes: RunningLanes?
    }

    private struct RunningLanes: ~Copyable {
        let sockets: LaneSockets
        var bulk: JoinedThread
    }

    /// Makes an agent for a guest's memory.
    ///
    /// - Parameters:
    ///   - userfaultfd: where the memory is registered; kept open until ``stop()``.
    ///   - ranges: the memory, in the order of the announcement.
    ///   - resident: which pages have been placed, one bitmap a range.
    ///   - aliases: where this process has mapped the memory too, one a range, or none at all: pages are received straight
    ///     into it. Such a range is registered for minor faults too.
    ///   - table: the announced regions.
    ///   - prefetch: which pages are asked for before they are touched.
    ///   - resolvesInThread: whether a thread that touches an absent page fetches it itself: the memory is this
    ///     process's and the userfaultfd has the feature SIGBUS. Nothing is asked for ahead then.
    ///   - onEvent: called from the agent's threads; must not block.
    public init(
        userfaultfd: consuming Userfaultfd,
        ranges: [PageRange],
        resident: [PageBitmap],
        aliases: [MemoryAlias?] = [],
        table: RegionTable,
        prefetch: Prefetch = .streams(),
        resolvesInThread: Bool = false,
        onEvent: @escaping @Sendable (Event) -> Void
    ) throws(SystemError) {
        let pushed = resolvesInThread ? try PushedWanted() : nil
        memory = try ArrivingMemory(
            userfaultfd: userfaultfd,
            ranges: ranges,
            resident: resident,
            aliases: aliases,
            table: table,
            pushedWanted: pushed,
            onEvent: onEvent
        )
        if let pushed {
            faults = .inThread(try InThreadFaults(memory: memory, pushed: pushed, onEvent: onEvent))
        } else {
            faults = .service(try FaultService(memory: memory, prefetch: prefetch, onEvent: onEvent))
        }
        self.onEvent = onEvent
    }

    /// Starts to read faults. Without lanes they wait.
    public func start() throws(SystemError) {
        switch faults {
        case .inThread(let faults): faults.start()
        case .service(let service):
            var thread: JoinedThread? = try JoinedThread(name: "faults", pace: .urgent) { service.run() }
            threads.withLock { swap(&thread, &$0.faults) }
            precondition(thread == nil, "the fault service was started already")
        }
    }

    /// Takes the lanes of a connection to the source; what is waited for is asked for again.
    public func attach(urgent: consuming StreamSocket, bulk: consuming StreamSocket) throws(SystemError) {
        let sockets = LaneSockets(urgent: urgent, bulk: bulk)
        let bulkThread = try JoinedThread(name: "bulk-place", pace: .background) { [memory, onEvent] in
            var receiver = LaneReceiver(.bulk, sockets: sockets, memory: memory)
            receiver.run(onEvent)
        }
        var lanes: RunningLanes? = RunningLanes(sockets: sockets, bulk: bulkThread)
        threads.withLock { swap(&lanes, &$0.lanes) }
        precondition(lanes == nil, "lanes were attached already")
        faults.use(sockets)
    }

    /// Ends the lanes and waits for their threads. Faults go on to be read, and wait.
    public func detach() {
        var lanes: RunningLanes? = nil
        threads.withLock { swap(&lanes, &$0.lanes) }
        // First, so that no thread waits for the peer.
        lanes?.sockets.shutdown()
        faults.use(nil)
        // Dropping the thread joins it.
        lanes = nil
    }

    /// Ends the lanes and the fault service, and gives complete memory back to the kernel.
    ///
    /// While pages are missing the userfaultfd stays open until this process ends, so that their readers wait on and
    /// never see zeros.
    public func stop() {
        detach()
        switch faults {
        case .inThread(let faults): faults.stop()
        case .service(let service):
            service.stop()
            var thread: JoinedThread? = nil
            threads.withLock { swap(&thread, &$0.faults) }
            thread = nil
        }
        memory.dropAliases()
        if memory.isComplete {
            memory.close()
        } else {
            // Retained for ever: the last copy of the userfaultfd must outlive this agent.
            _ = Unmanaged.passRetained(memory)
        }
    }

    /// Which pages have been placed: a bit a page for each region.
    public var received: [[UInt8]] { memory.resident.map { $0.bytes(of: 0..<$0.pageCount) } }

    /// What has arrived so far.
    public var progress: Progress { memory.progress }

    /// From reading a fault's event to its page placed, one recorder a thread that places.
    public var service: [LatencyRecorder] { [memory.urgentService, memory.bulkService] }
}

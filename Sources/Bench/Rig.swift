import DestinationAgent
import LinuxSystem
import PageProtocol
import Synchronization

/// Memory at the near end whose pages come from the far end.
protocol Rig: AnyObject, Sendable {
    var region: MemoryRegion { get }
    /// Whether every page is there.
    var isComplete: Bool { get }
    /// Why pages no longer come, or nil.
    var failure: String? { get }
    /// Ends it: the memory can no longer be waited for.
    func end()
}

/// The destination agent.
final class AgentRig: Rig {
    let region: MemoryRegion
    private let agent: DestinationAgent
    private let shared = Shared()

    private final class Shared: Sendable {
        let isComplete = Atomic<Bool>(false)
        let failure = Mutex<String?>(nil)
    }

    init(pageCount: Int, prefetches: Bool, lanes: consuming LanePair) throws {
        region = try MemoryRegion(name: "bench", pageCount: pageCount)
        let userfaultfd = try Userfaultfd()
        try userfaultfd.register(region.range)
        let shape = RegionShape(name: "bench", guestAddress: 0, pageSize: 4096, pageCount: UInt64(pageCount))
        agent = try DestinationAgent(
            userfaultfd: userfaultfd,
            ranges: [region.range],
            resident: [PageBitmap(pageCount: pageCount)],
            table: RegionTable([shape]),
            prefetches: prefetches
        ) { [shared] event in
            switch event {
            case .everyPageResident: shared.isComplete.store(true, ordering: .releasing)
            case .laneLost(let lane, let reason): shared.failure.withLock { $0 = "the \(lane) lane: \(reason)" }
            case .failed(let reason): shared.failure.withLock { $0 = reason }
            }
        }
        try agent.start()
        try agent.attach(urgent: lanes.urgent, bulk: lanes.bulk)
    }

    var isComplete: Bool { shared.isComplete.load(ordering: .acquiring) }
    var failure: String? { shared.failure.withLock { $0 } }

    func end() {
        agent.stop()
    }
}

/// The least that places pages: one thread asks for what is touched, one takes what is pushed.
final class BareRig: Rig {
    let region: MemoryRegion
    private let lanes: BareLanes
    private let shared: Shared
    private let threads: Threads

    private final class Shared: Sendable {
        let userfaultfd: Userfaultfd
        let isComplete = Atomic<Bool>(false)

        init(_ userfaultfd: consuming Userfaultfd) {
            self.userfaultfd = userfaultfd
        }
    }

    private final class Threads: Sendable {
        let faults: JoinedThread
        let bulk: JoinedThread

        init(faults: consuming JoinedThread, bulk: consuming JoinedThread) {
            self.faults = faults
            self.bulk = bulk
        }
    }

    init(pageCount: Int, chunk: Int, lanes: BareLanes) throws {
        // The last page is touched to end the thread that waits for faults.
        let region = try MemoryRegion(name: "bench", pageCount: pageCount + 1)
        let userfaultfd = try Userfaultfd(isBlocking: true)
        try userfaultfd.register(region.range)
        let shared = Shared(userfaultfd)
        self.region = region
        self.lanes = lanes
        self.shared = shared
        threads = Threads(
            faults: try JoinedThread(name: "bare-faults") { BareRig.serve(region, lanes, shared) },
            bulk: try JoinedThread(name: "bare-place") { BareRig.place(region, chunk, lanes, shared) }
        )
    }

    var isComplete: Bool { shared.isComplete.load(ordering: .acquiring) }
    var failure: String? { nil }

    func end() {
        lanes.bulk.shutdown()
        _ = region.page(region.pageCount - 1).assumingMemoryBound(to: Atomic<UInt64>.self).pointee
            .load(ordering: .relaxed)
        lanes.shutdown()
    }

    private static func serve(_ region: MemoryRegion, _ lanes: BareLanes, _ shared: Shared) {
        let stage = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)
        defer {
            stage.deallocate()
            // Nobody waits for a thread that has ended.
            try? shared.userfaultfd.unregister(region.range)
        }
        guard let base = stage.baseAddress else { return }
        var events = Userfaultfd.EventBuffer(capacity: 1)
        var number: UInt64 = 0
        while (try? shared.userfaultfd.read(into: &events)) != nil {
            guard events.count > 0, case .fault(let address) = events[0] else { continue }
            let page = address & ~4095
            number = (page - region.range.address) / 4096
            if number == UInt64(region.pageCount - 1) { return }
            let isSent = withUnsafeBytes(of: &number) { (try? lanes.urgent.send($0)) != nil }
            guard isSent, (try? lanes.urgent.receive(exactly: stage)) == 4096 else { return }
            if shared.userfaultfd.copy(to: page, from: base, byteCount: 4096) == .present {
                shared.userfaultfd.wake(page, byteCount: 4096)
            }
        }
    }

    private static func place(_ region: MemoryRegion, _ chunk: Int, _ lanes: BareLanes, _ shared: Shared) {
        let stage = UnsafeMutableRawBufferPointer.allocate(byteCount: chunk * 4096, alignment: 4096)
        defer { stage.deallocate() }
        let pageCount = region.pageCount - 1
        var page = 0
        while page < pageCount {
            let count = min(chunk, pageCount - page)
            let bytes = UnsafeMutableRawBufferPointer(rebasing: stage[..<(count * 4096)])
            guard (try? lanes.bulk.receive(exactly: bytes)) == bytes.count, let base = bytes.baseAddress else { return }
            var done = 0
            while done < count {
                let address = region.range.address(ofPage: page + done)
                switch shared.userfaultfd.copy(to: address, from: base + done * 4096, byteCount: (count - done) * 4096)
                {
                case .placed(let bytes): done += bytes / 4096
                case .present: done += 1
                case .again: continue
                case .gone, .noMemory, .failed: return
                }
            }
            page += count
        }
        shared.isComplete.store(true, ordering: .releasing)
    }
}

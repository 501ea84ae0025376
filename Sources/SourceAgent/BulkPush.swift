import LinuxSystem
import PageProtocol
import Synchronization

/// The thread that pushes every page that nobody has asked for yet, in order of address.
struct BulkPush: ~Copyable {
    /// Bytes of pages in one frame, and in one send: what the destination places from a buffer that stays in its cache.
    private static let batchBytes = 64 * 4096
    /// Zero pages in one frame.
    private static let zeroRun = 512

    private let memory: SentMemory
    private let sockets: LaneSockets
    private let onEvent: @Sendable (SourceAgent.Event) -> Void
    private var gather = FrameGather()
    private var lastSend = MonotonicClock.now()
    /// What is in the gather, where memory is given back.
    private var runs: [PageRun] = []

    init(memory: SentMemory, sockets: LaneSockets, onEvent: @escaping @Sendable (SourceAgent.Event) -> Void) {
        self.memory = memory
        self.sockets = sockets
        self.onEvent = onEvent
    }

    mutating func run() {
        do {
            for region in memory.regions.indices { try push(region: region) }
            try flush()
            memory.release?.endPush()
            if memory.completesNow() { onEvent(.everyPageSent) }
        } catch {
            // Told before the other lane ends because of it: the first reason is the true one.
            onEvent(.laneLost(.bulk, reason: "\(error)"))
            sockets.shutdown()
        }
    }

    private mutating func push(region index: Int) throws(SystemError) {
        let region = memory.regions[index]
        let sent = memory.sent[index]
        var page = 0
        while let first = sent.firstClear(from: page) {
            let batchBytes = memory.pushLimit.batch(atMost: BulkPush.batchBytes)
            let longestRun = max(1, batchBytes / region.pageSize)
            let isZero = ZeroScan.isZero(region.page(first), byteCount: region.pageSize)
            let limit = min(region.pageCount, first + (isZero ? BulkPush.zeroRun : longestRun))
            var end = first + 1
            while end < limit, !sent.contains(end),
                ZeroScan.isZero(region.page(end), byteCount: region.pageSize) == isZero
            {
                end += 1
            }
            // Claimed before it is sent: a request that comes meanwhile is answered all the same.
            memory.claim(first..<end, region: index, isZero: isZero)
            let run = PageRun(region: UInt32(index), count: UInt32(end - first), first: UInt64(first))
            if isZero {
                gather.add(.zeroes(run))
            } else {
                gather.add(.pages(run, pageSize: UInt32(region.pageSize)), body: region.page(first))
            }
            if memory.release != nil { runs.append(run) }
            if gather.isFull || gather.bodyBytes >= batchBytes { try flush() }
            page = end
        }
    }

    /// Sends what was gathered: where faults have left gaps, many short runs leave by one call.
    private mutating func flush() throws(SystemError) {
        // Between two sends, so that nobody waits for the rest of a slice: neither a fault nor the guest.
        JoinedThread.yield()
        let bytes = try gather.flush(to: sockets.bulk)
        memory.bytesSent.add(bytes, ordering: .relaxed)
        memory.pushLimit.rest(after: bytes, since: lastSend)
        lastSend = MonotonicClock.now()
        guard let release = memory.release else { return }
        for run in runs { release.release(Int(run.first)..<Int(run.first) + Int(run.count), region: Int(run.region)) }
        runs.removeAll(keepingCapacity: true)
    }
}

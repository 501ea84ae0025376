import LinuxSystem
import PageProtocol
import Synchronization

/// The thread that pushes every page that nobody has asked for yet, all of them in a circle.
///
/// In order of address, but where requests come from one neighbourhood, it goes on from behind the newest. Requests all
/// over the memory say nothing of what is touched next; to follow those would only break the push into pieces.
struct BulkPush: ~Copyable {
    /// Bytes of pages in one frame, and in one send: what the destination places from a buffer that stays in its cache.
    private static let batchBytes = 64 * 4096
    /// How far apart two requests lie at most that show where the workload is, in pages.
    private static let neighbourhood = 1024
    /// Zero pages in one frame.
    private static let zeroRun = 512

    private let memory: SentMemory
    private let sockets: LaneSockets
    private let onEvent: @Sendable (SourceAgent.Event) -> Void
    private var gather = FrameGather()
    private var lastSend = MonotonicClock.now()
    /// What is in the gather, where memory is given back.
    private var runs: [PageRun] = []
    /// Where it goes on.
    private var place: PagePlace
    /// What lay behind the newest request at the last look.
    private var seen: PagePlace

    init(memory: SentMemory, sockets: LaneSockets, onEvent: @escaping @Sendable (SourceAgent.Event) -> Void) {
        self.memory = memory
        self.sockets = sockets
        self.onEvent = onEvent
        seen = memory.behindNewestRequest
        place = memory.isUnsent(seen) ? seen : PagePlace(region: 0, page: 0)
    }

    mutating func run() {
        do {
            while let next = memory.firstUnsent(from: place) { try push(from: next) }
            try flush()
            memory.release?.endPush()
            if memory.completesNow() { onEvent(.everyPageSent) }
        } catch {
            // Told before the other lane ends because of it: the first reason is the true one.
            onEvent(.laneLost(.bulk, reason: "\(error)"))
            sockets.shutdown()
        }
    }

    /// Pushes a run that begins with a page that has not been sent.
    private mutating func push(from first: PagePlace) throws(SystemError) {
        let region = memory.regions[first.region]
        let sent = memory.sent[first.region]
        let batchBytes = memory.pushLimit.batch(atMost: BulkPush.batchBytes)
        let longestRun = max(1, batchBytes / region.pageSize)
        let isZero = ZeroScan.isZero(region.page(first.page), byteCount: region.pageSize)
        let limit = min(region.pageCount, first.page + (isZero ? BulkPush.zeroRun : longestRun))
        var end = first.page + 1
        while end < limit, !sent.contains(end),
            ZeroScan.isZero(region.page(end), byteCount: region.pageSize) == isZero
        {
            end += 1
        }
        // Claimed before it is sent: a request that comes meanwhile is answered all the same.
        memory.claim(first.page..<end, region: first.region, isZero: isZero)
        let run = PageRun(
            region: UInt32(first.region),
            count: UInt32(end - first.page),
            first: UInt64(first.page)
        )
        if isZero {
            gather.add(.zeroes(run))
        } else {
            gather.add(.pages(run, pageSize: UInt32(region.pageSize)), body: region.page(first.page))
        }
        if memory.release != nil { runs.append(run) }
        place = PagePlace(region: first.region, page: end)
        guard gather.isFull || gather.bodyBytes >= batchBytes else { return }
        try flush()
        follow()
    }

    /// Looks between two sends where the newest request was.
    private mutating func follow() {
        let newest = memory.behindNewestRequest
        guard newest != seen else { return }
        let isNear = newest.region == seen.region && abs(newest.page - seen.page) <= BulkPush.neighbourhood
        seen = newest
        if isNear, memory.isUnsent(newest) { place = newest }
    }

    /// Sends what was gathered: where faults have left gaps, many short runs leave by one call.
    private mutating func flush() throws(SystemError) {
        let bytes = try gather.flush(to: sockets.bulk.stream)
        memory.bytesSent.add(bytes, ordering: .relaxed)
        memory.pushLimit.rest(after: bytes, since: lastSend)
        lastSend = MonotonicClock.now()
        guard let release = memory.release else { return }
        for run in runs { release.release(Int(run.first)..<Int(run.first) + Int(run.count), region: Int(run.region)) }
        runs.removeAll(keepingCapacity: true)
    }
}

import Compression
import LinuxSystem
import PageProtocol
import Synchronization
import Telemetry

/// The thread of one bulk lane, which pushes pages that have not been sent yet, in address order, wrapping around at the
/// end of memory.
///
/// The lanes of a push share a ``PushCursor``. After each send, the push follows the newest request.
struct BulkPush: ~Copyable {
    /// Bytes of pages in one frame and in one send: the destination places that many from a buffer that stays in its
    /// cache.
    private static let batchBytes = 64 * 4096
    /// Zero pages in one frame.
    private static let zeroRun = 512

    private let lane: Int
    private let cursor: PushCursor
    private let memory: SentMemory
    private let sockets: DestinationLanes
    private let onEvent: @Sendable (PageServer.Event) -> Void
    private var gather = FrameGather()
    private var window: PageWindow
    /// Compresses runs; nil if pages go as they are.
    private var compressor: RunCompressor?
    /// Bytes of the pages in the gather, before they were compressed.
    private var gathered = 0
    private var lastSend = MonotonicClock.now()
    /// The runs in the gather, recorded only if memory is released after the send.
    private var runs: [PageRun] = []
    /// The chunk that this lane sends; nil if nothing is left to take.
    private var chunk: PushCursor.Chunk?
    /// The page of the chunk from which the push continues.
    private var page = 0
    /// The place after the newest request, as of this lane's previous check.
    private var seen: PagePlace

    /// - Parameters:
    ///   - lane: the index of the bulk lane among `sockets`.
    ///   - cursor: what is left to push, shared by all lanes.
    ///   - memory: the memory to push.
    ///   - sockets: the lanes.
    ///   - codecs: the codecs that may be used; empty if pages go as they are.
    ///   - choosesCodec: whether to measure which of the codecs pays, if any.
    ///   - onEvent: called with the events of the lanes.
    init(
        lane: Int,
        cursor: PushCursor,
        memory: SentMemory,
        sockets: DestinationLanes,
        compressing codecs: [Codec] = [],
        choosesCodec: Bool = false,
        onEvent: @escaping @Sendable (PageServer.Event) -> Void
    ) {
        self.lane = lane
        self.cursor = cursor
        compressor =
            codecs.isEmpty
            ? nil
            : RunCompressor(
                codecs,
                chooses: choosesCodec,
                batch: BulkPush.batchBytes,
                counts: memory.compression
            )
        self.memory = memory
        self.sockets = sockets
        self.onEvent = onEvent
        window = memory.makePushWindow()
        seen = cursor.firstSeen
    }

    mutating func run() {
        do {
            turn(to: cursor.take(lane))
            while let (first, end) = nextUnsent() { try push(from: first, upTo: end) }
            try flush()
            BulkPush.finish(lane, cursor, memory, onEvent)
        } catch {
            // Pages that were read before are sent all the same. If that fails, the reason remains the first one.
            if error is MemoryLost { try? flush() }
            // Reported before other lanes end because of this error: the first reason reported is the true one.
            onEvent(.end(of: .bulk, error))
            sockets.shutdown()
        }
    }

    /// Ends the push if this is the last of its lanes.
    ///
    /// Only after the last lane has every page that counts as sent really left.
    static func finish(
        _ lane: Int,
        _ cursor: PushCursor,
        _ memory: SentMemory,
        _ onEvent: @Sendable (PageServer.Event) -> Void
    ) {
        guard cursor.finish(lane) else { return }
        memory.release?.endPush()
        if memory.completesNow() { onEvent(.everyPageSent) }
    }

    private mutating func turn(to chunk: PushCursor.Chunk?) {
        self.chunk = chunk
        page = chunk?.pages.lowerBound ?? 0
    }

    /// The next unsent page, and the end of its chunk; nil if nothing is left to take.
    private mutating func nextUnsent() -> (first: PagePlace, end: Int)? {
        while let chunk {
            let end = chunk.pages.upperBound
            if let first = memory.sent[chunk.region].firstClear(in: page..<end) {
                return (PagePlace(region: chunk.region, page: first), end)
            }
            turn(to: cursor.take(lane))
        }
        return nil
    }

    /// Pushes a run that begins with an unsent page, and does not reach beyond the end of the chunk.
    private mutating func push(from first: PagePlace, upTo chunkEnd: Int) throws {
        if window.isFull { try flush() }
        let sent = memory.sent[first.region]
        page = first.page + 1
        guard let shown = try memory.showUnsent(from: first, upTo: chunkEnd, in: &window) else { return }
        let batchBytes = memory.pushLimit.batch(atMost: BulkPush.batchBytes, lanes: cursor.lanes)
        let longestRun = max(1, batchBytes / shown.pageSize)
        let isZero = shown.isZero(first.page)
        let limit = min(shown.pages.upperBound, chunkEnd, first.page + (isZero ? BulkPush.zeroRun : longestRun))
        var end = first.page + 1
        while end < limit, !sent.contains(end), shown.isZero(end) == isZero { end += 1 }
        // The run is claimed before it is sent; a request that arrives meanwhile is answered all the same.
        memory.claim(first.page..<end, region: first.region, as: isZero ? .zero : .pushed)
        let run = PageRun(
            region: UInt32(first.region),
            count: UInt32(end - first.page),
            first: UInt64(first.page)
        )
        if isZero {
            gather.add(.zeroes(run))
        } else {
            add(run, shown, upTo: end)
        }
        if memory.release != nil { runs.append(run) }
        page = end
        guard gather.isFull || gathered >= batchBytes else { return }
        try flush()
        follow()
    }

    /// Gathers a run of pages that are not all zeros, compressed if that pays.
    private mutating func add(_ run: PageRun, _ shown: ShownPages, upTo end: Int) {
        let start = shown.address(of: Int(run.first))
        let byteCount = Int(run.count) * shown.pageSize
        gathered += byteCount
        if let (frame, body) = compressor?.compress(run, UnsafeRawBufferPointer(start: start, count: byteCount)) {
            gather.add(frame, body: body)
        } else {
            gather.add(.pages(run, pageSize: UInt32(shown.pageSize)), body: start)
            window.keep(shown, upTo: end)
        }
    }

    /// Checks after a send where the newest request was, and follows it.
    private mutating func follow() {
        let newest = memory.behindNewestRequest
        guard newest != seen else { return }
        seen = newest
        if let chunk = cursor.follow(newest, lane) { turn(to: chunk) }
    }

    /// Sends the gathered frames; between pages that faults have already fetched, many short runs leave in one call.
    private mutating func flush() throws(SystemError) {
        let begin = MonotonicClock.now()
        let bytes = try gather.flush(to: sockets.bulk[lane].stream)
        window.empty()
        compressor?.empty()
        gathered = 0
        memory.bytesSent.add(bytes, ordering: .relaxed)
        memory.laneBytes.add(bytes, kind: .push, index: lane)
        memory.push.note()
        memory.pushLimit.rest(after: bytes, since: lastSend)
        let end = MonotonicClock.now()
        compressor?.noteSend(bytes: bytes, sending: end - begin, elapsed: end - lastSend)
        lastSend = end
        guard let release = memory.release else { return }
        for run in runs { release.release(Int(run.first)..<Int(run.first) + Int(run.count), region: Int(run.region)) }
        runs.removeAll(keepingCapacity: true)
    }
}

import Compression
import LinuxSystem
import PageProtocol
import Synchronization

/// The thread that pushes every page that has not been sent yet, in address order, wrapping around at the end of
/// memory.
///
/// After each send, the push compares the newest request with the newest request of the check before. If the two are
/// near each other, the push jumps to the pages after the newer one. Requests that are spread over the memory do not
/// predict the next fault; a push that followed them would only break into short runs.
struct BulkPush: ~Copyable {
    /// Bytes of pages in one frame and in one send: the destination places that many from a buffer that stays in its
    /// cache.
    private static let batchBytes = 64 * 4096
    /// The distance, in pages, up to which two requests count as near.
    private static let neighbourhood = 1024
    /// Zero pages in one frame.
    private static let zeroRun = 512

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
    /// The place from which the push continues.
    private var place: PagePlace
    /// The place after the newest request, as of the previous check.
    private var seen: PagePlace

    /// - Parameters:
    ///   - memory: the memory to push.
    ///   - sockets: the lanes.
    ///   - codecs: the codecs that may be used; empty if pages go as they are.
    ///   - choosesCodec: whether to measure which of the codecs pays, if any.
    ///   - onEvent: called with the events of the lanes.
    init(
        memory: SentMemory,
        sockets: DestinationLanes,
        compressing codecs: [Codec] = [],
        choosesCodec: Bool = false,
        onEvent: @escaping @Sendable (PageServer.Event) -> Void
    ) {
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
            // Pages that were read before are sent all the same. If that fails, the reason remains the first one.
            if error is MemoryLost { try? flush() }
            // Reported before the other lane ends because of this error: the first reason reported is the true one.
            onEvent(.end(of: .bulk, error))
            sockets.shutdown()
        }
    }

    /// Pushes a run that begins with an unsent page.
    private mutating func push(from first: PagePlace) throws {
        if window.isFull { try flush() }
        let sent = memory.sent[first.region]
        place = PagePlace(region: first.region, page: first.page + 1)
        guard let shown = try memory.showUnsent(from: first, in: &window) else { return }
        let batchBytes = memory.pushLimit.batch(atMost: BulkPush.batchBytes)
        let longestRun = max(1, batchBytes / shown.pageSize)
        let isZero = shown.isZero(first.page)
        let limit = min(shown.pages.upperBound, first.page + (isZero ? BulkPush.zeroRun : longestRun))
        var end = first.page + 1
        while end < limit, !sent.contains(end), shown.isZero(end) == isZero { end += 1 }
        // The run is claimed before it is sent; a request that arrives meanwhile is answered all the same.
        memory.claim(first.page..<end, region: first.region, isZero: isZero)
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
        place.page = end
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

    /// Checks after a send where the newest request was, and moves the push there if it is near the request before.
    private mutating func follow() {
        let newest = memory.behindNewestRequest
        guard newest != seen else { return }
        let isNear = newest.region == seen.region && abs(newest.page - seen.page) <= BulkPush.neighbourhood
        seen = newest
        if isNear, memory.isUnsent(newest) { place = newest }
    }

    /// Sends the gathered frames; between pages that faults have already fetched, many short runs leave in one call.
    private mutating func flush() throws(SystemError) {
        let begin = MonotonicClock.now()
        let bytes = try gather.flush(to: sockets.bulk.stream)
        window.empty()
        compressor?.empty()
        gathered = 0
        memory.bytesSent.add(bytes, ordering: .relaxed)
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

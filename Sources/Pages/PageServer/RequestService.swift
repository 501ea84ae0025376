import LinuxSystem
import PageProtocol
import Synchronization

/// Answers page requests on one lane, on the thread that calls ``run(onComplete:)``.
///
/// Each round reads the requests that have arrived and answers them by as few sends as fit.
struct RequestService<Memory: RequestedMemory>: ~Copyable {
    private let memory: Memory
    private let socket: SharedSocket
    /// The index of the lane among the urgent lanes.
    private let lane: Int
    private var gather = FrameGather(copies: Memory.isCopied)
    private var window: PageWindow
    /// How long to poll for the next request.
    private var budget: PollBudget
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: 64 * LaneFrame.encodedByteCount,
        alignment: 8
    )
    private let probeBody: UnsafeMutableRawPointer
    /// The newest request for a single page in this round.
    private var newest: PageRun?

    /// - Parameters:
    ///   - socket: the lane.
    ///   - lane: the index of the lane among the urgent lanes.
    ///   - memory: the memory to answer from.
    ///   - polling: the longest time to poll for the next request before the thread sleeps; zero to never poll.
    init(_ socket: SharedSocket, lane: Int = 0, memory: Memory, polling: Duration) {
        budget = PollBudget(limit: polling)
        self.lane = lane
        self.socket = socket
        self.memory = memory
        window = memory.makeWindow()
        probeBody = .allocate(byteCount: Int(Wire.probeReplyBytes), alignment: 64)
        probeBody.initializeMemory(as: UInt8.self, repeating: 0, count: Int(Wire.probeReplyBytes))
    }

    deinit {
        buffer.deallocate()
        probeBody.deallocate()
    }

    /// Answers requests until the lane is closed, or idle for longer than the receive timeout of its socket.
    ///
    /// A lane whose socket has no receive timeout is never idle.
    ///
    /// - Parameters:
    ///   - rest: the bytes of an incomplete request that an earlier call has returned.
    ///   - mayWait: whether to wait for further requests after the first round.
    ///   - onComplete: called once every page has been sent at least once.
    /// - Returns: what has arrived of an incomplete request, when the lane is idle.
    /// - Throws: the reason why the lane ended.
    mutating func run(
        continuing rest: [UInt8] = [],
        mayWait: Bool = true,
        onComplete: () -> Void
    ) throws -> [UInt8] {
        var filled = rest.count
        UnsafeMutableRawBufferPointer(rebasing: buffer[..<filled]).copyBytes(from: rest)
        repeat {
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
            guard let received = try receive(into: room) else { break }
            guard received > 0 else { throw LaneClosed(peer: socket.stream.peer) }
            filled += received
            guard let base = buffer.baseAddress else { preconditionFailure("a buffer that was allocated has a base") }
            let offset = filled / LaneFrame.encodedByteCount * LaneFrame.encodedByteCount
            let frames = UnsafeRawBufferPointer(start: base, count: offset)
            try memory.answering { try answer(frames) }
            if memory.completesNow() { onComplete() }
            // The newest request is noted after the answers, so that the push does not also send pages that were
            // requested ahead with it.
            if let newest { memory.noteNewest(newest) }
            newest = nil
            // The rest of the buffer may be part of a request, which begins the next round.
            base.copyMemory(from: base + offset, byteCount: filled - offset)
            filled -= offset
        } while mayWait
        return Array(buffer[..<filled])
    }

    @inline(__always)
    private mutating func receive(into room: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
        if memory.isPushing { return try socket.stream.receiveInTime(into: room) }
        return try socket.stream.receiveInTime(into: room, polling: &budget)
    }

    @inline(__always)
    private mutating func answer(_ frames: UnsafeRawBufferPointer) throws {
        do {
            for offset in stride(from: 0, to: frames.count, by: LaneFrame.encodedByteCount) {
                if let base = frames.baseAddress { try answer(LaneFrame.decode(base + offset)) }
            }
        } catch let lost as MemoryLost {
            // Pages that were read before are sent all the same. If that fails, the reason remains the first one.
            try? flush()
            throw lost
        }
        try flush()
    }

    @inline(__always)
    private mutating func answer(_ frame: LaneFrame) throws {
        switch frame.kind {
        case .pageRequest, .aheadRequest:
            _ = try memory.table.extent(of: frame)
            try memory.admit(frame.run)
            // A request for several pages is a prefetch, which serves its reader without the push: there is nothing to
            // follow.
            if frame.kind == .pageRequest, frame.run.count == 1 { newest = frame.run }
            try answerRun(of: frame)
            memory.noteAnswer()
        case .probe:
            gather.add(.probeReply, body: probeBody)
            if gather.isFull { try flush() }
        case .pages, .zeroes, .probeReply, .sent, .pagesLZ4, .pagesZstd:
            throw UnexpectedFrame(frame: frame, from: .destination)
        }
    }

    /// The ways to answer a request for one page.
    private enum Answer {
        case nothing, sent, content
    }

    @inline(__always)
    private func answer(to page: Int, region: Int, isAhead: Bool) -> Answer {
        // The push may be sending this page; answering a prefetch request for it would send the page twice.
        if isAhead, memory.isSent(page, region: region) { return .sent }
        return memory.isReleased(page, region: region) ? .nothing : .content
    }

    /// Answers a request by as few frames as its pages allow.
    @inline(__always)
    private mutating func answerRun(of request: LaneFrame) throws {
        let (run, isAhead) = (request.run, request.kind == .aheadRequest)
        let region = Int(run.region)
        let end = Int(run.first) + Int(run.count)
        var first = Int(run.first)
        while first < end {
            let kind = answer(to: first, region: region, isAhead: isAhead)
            var next = first + 1
            while next < end, answer(to: next, region: region, isAhead: isAhead) == kind { next += 1 }
            switch kind {
            case .nothing: break
            case .sent:
                gather.add(.sent(PageRun(region: run.region, count: UInt32(next - first), first: UInt64(first))))
                if gather.isFull { try flush() }
            case .content: try send(first..<next, region: region)
            }
            first = next
        }
    }

    /// Sends the content of pages, zeros or bytes.
    @inline(__always)
    private mutating func send(_ pages: Range<Int>, region: Int) throws {
        var first = pages.lowerBound
        while first < pages.upperBound {
            if window.isFull { try flush() }
            guard let shown = try memory.show(first..<pages.upperBound, region: region, in: &window) else {
                first += 1
                continue
            }
            while first < shown.pages.upperBound {
                let isZero = memory.isZero(first, region: region, in: shown)
                var next = first + 1
                while next < shown.pages.upperBound, memory.isZero(next, region: region, in: shown) == isZero {
                    next += 1
                }
                let part = PageRun(region: UInt32(region), count: UInt32(next - first), first: UInt64(first))
                memory.claim(first..<next, region: region, isZero: isZero)
                if isZero {
                    gather.add(.zeroes(part))
                } else {
                    try add(.pages(part, pageSize: UInt32(shown.pageSize)), shown.address(of: first))
                    window.keep(shown, upTo: next)
                }
                if gather.isFull { try flush() }
                first = next
            }
        }
    }

    @inline(__always)
    private mutating func add(_ frame: LaneFrame, _ body: UnsafeMutableRawPointer) throws {
        guard Memory.isCopied else { return gather.add(frame, body: body) }
        gather.add(frame)
        var offset = 0
        while offset < frame.bodyByteCount {
            offset += gather.copy(body + offset, atMost: Int(frame.bodyByteCount) - offset)
            if gather.isFull { try flush() }
        }
    }

    @inline(__always)
    private mutating func flush() throws {
        try memory.requireUnchanged()
        memory.noteSent(bytes: try gather.flush(to: socket.stream), lane: lane)
        window.empty()
    }
}

import LinuxSystem
import PageProtocol
import Synchronization

/// A thread that answers page requests on one lane: reads what has arrived, answers all of it by one send.
struct UrgentService: ~Copyable {
    private let memory: SentMemory
    private let socket: SharedSocket
    private let sockets: LaneSockets
    private let onEvent: @Sendable (SourceAgent.Event) -> Void
    private var gather = FrameGather()
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: 64 * LaneFrame.encodedByteCount,
        alignment: 8
    )
    private let probeBody: UnsafeMutableRawPointer
    /// The newest request for a single page among those that are being answered.
    private var newest: PageRun?

    /// Makes one for one of the urgent lanes.
    init(
        _ socket: SharedSocket,
        of sockets: LaneSockets,
        memory: SentMemory,
        onEvent: @escaping @Sendable (SourceAgent.Event) -> Void
    ) {
        self.socket = socket
        self.memory = memory
        self.sockets = sockets
        self.onEvent = onEvent
        probeBody = .allocate(byteCount: Int(Wire.probeReplyBytes), alignment: 64)
        probeBody.initializeMemory(as: UInt8.self, repeating: 0, count: Int(Wire.probeReplyBytes))
    }

    deinit {
        buffer.deallocate()
        probeBody.deallocate()
    }

    mutating func run() {
        do {
            try serve()
        } catch {
            // Told before the other lane ends because of it: the first reason is the true one.
            onEvent(.laneLost(.urgent, reason: "\(error)"))
            sockets.shutdown()
        }
    }

    private mutating func serve() throws {
        var filled = 0
        while true {
            let received = try socket.stream.receive(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
            guard received > 0 else { throw LaneClosed(peer: socket.stream.peer) }
            filled += received
            guard let base = buffer.baseAddress else { preconditionFailure("a buffer that was allocated has a base") }
            let offset = filled / LaneFrame.encodedByteCount * LaneFrame.encodedByteCount
            let frames = UnsafeRawBufferPointer(start: base, count: offset)
            if let release = memory.release {
                try release.withMemoryKept { try answer(frames) }
            } else {
                try answer(frames)
            }
            if memory.completesNow() { onEvent(.everyPageSent) }
            // Once everything was answered: what was asked for ahead together with the page is not pushed too.
            if let newest { memory.noteRequest(newest) }
            newest = nil
            // Part of a request may be left; it begins the next round.
            base.copyMemory(from: base + offset, byteCount: filled - offset)
            filled -= offset
        }
    }

    @inline(__always)
    private mutating func answer(_ frames: UnsafeRawBufferPointer) throws {
        for offset in stride(from: 0, to: frames.count, by: LaneFrame.encodedByteCount) {
            if let base = frames.baseAddress { try answer(LaneFrame.decode(base + offset)) }
        }
        try flush()
    }

    @inline(__always)
    private mutating func answer(_ frame: LaneFrame) throws {
        switch frame.kind {
        case .pageRequest:
            _ = try memory.table.extent(of: frame)
            guard memory.isFrozen.load(ordering: .acquiring) else { throw RequestBeforeSwitchover(run: frame.run) }
            // Several are asked for ahead of a reader who is served then: nothing to follow.
            if frame.run.count == 1 { newest = frame.run }
            try answer(run: frame.run)
            memory.requests.add(1, ordering: .relaxed)
        case .probe:
            gather.add(.probeReply, body: probeBody)
            if gather.isFull { try flush() }
        case .pages, .zeroes, .probeReply:
            throw UnexpectedFrame(frame: frame)
        }
    }

    /// Answers a run by as few frames as its zero pages allow.
    @inline(__always)
    private mutating func answer(run: PageRun) throws {
        let index = Int(run.region)
        let region = memory.regions[index]
        let end = Int(run.first) + Int(run.count)
        var first = Int(run.first)
        while first < end {
            if isReleased(first, index) {
                first += 1
                continue
            }
            let isZero = ZeroScan.isZero(region.page(first), byteCount: region.pageSize)
            var next = first + 1
            while next < end, !isReleased(next, index),
                ZeroScan.isZero(region.page(next), byteCount: region.pageSize) == isZero
            {
                next += 1
            }
            let part = PageRun(region: run.region, count: UInt32(next - first), first: UInt64(first))
            if isZero {
                gather.add(.zeroes(part))
            } else {
                gather.add(.pages(part, pageSize: UInt32(region.pageSize)), body: region.page(first))
            }
            memory.claim(first..<next, region: index, isZero: isZero)
            if gather.isFull { try flush() }
            first = next
        }
    }

    @inline(__always)
    private func isReleased(_ page: Int, _ region: Int) -> Bool {
        memory.release?.isReleased(page, region: region) ?? false
    }

    @inline(__always)
    private mutating func flush() throws(SystemError) {
        let bytes = try gather.flush(to: socket.stream)
        memory.bytesSent.add(bytes, ordering: .relaxed)
    }
}

/// The peer closed a lane.
struct LaneClosed: Error, CustomStringConvertible {
    let peer: String
    var description: String { "\(peer) closed the connection" }
}

/// A peer asked for memory that still changes.
struct RequestBeforeSwitchover: Error, CustomStringConvertible {
    let run: PageRun
    var description: String { "the peer asked for a \(run) before the workload was stopped" }
}

/// A frame that this side never receives.
struct UnexpectedFrame: Error, CustomStringConvertible {
    let frame: LaneFrame
    var description: String { "the peer sent \(frame.kind) with a \(frame.run), which a destination never sends" }
}

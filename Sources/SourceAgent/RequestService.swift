import LinuxSystem
import PageProtocol
import Synchronization

/// A thread that answers page requests on one lane: reads what has arrived, answers all of it by one send.
struct RequestService<Memory: RequestedMemory>: ~Copyable {
    private let memory: Memory
    private let socket: SharedSocket
    private var gather = FrameGather(copies: Memory.isCopied)
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: 64 * LaneFrame.encodedByteCount,
        alignment: 8
    )
    private let probeBody: UnsafeMutableRawPointer
    /// The newest request for a single page among those that are being answered.
    private var newest: PageRun?

    /// Makes one for one lane.
    init(_ socket: SharedSocket, memory: Memory) {
        self.socket = socket
        self.memory = memory
        probeBody = .allocate(byteCount: Int(Wire.probeReplyBytes), alignment: 64)
        probeBody.initializeMemory(as: UInt8.self, repeating: 0, count: Int(Wire.probeReplyBytes))
    }

    deinit {
        buffer.deallocate()
        probeBody.deallocate()
    }

    /// Answers until the lane ends, or is ended.
    ///
    /// - Parameter onComplete: called when every page has been sent at least once.
    /// - Throws: why it ended.
    mutating func run(onComplete: () -> Void) throws {
        var filled = 0
        while true {
            let received = try socket.stream.receive(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
            guard received > 0 else { throw LaneClosed(peer: socket.stream.peer) }
            filled += received
            guard let base = buffer.baseAddress else { preconditionFailure("a buffer that was allocated has a base") }
            let offset = filled / LaneFrame.encodedByteCount * LaneFrame.encodedByteCount
            let frames = UnsafeRawBufferPointer(start: base, count: offset)
            try memory.answering { try answer(frames) }
            if memory.completesNow() { onComplete() }
            // Once everything was answered: what was asked for ahead together with the page is not pushed too.
            if let newest { memory.noteNewest(newest) }
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
            try memory.admit(frame.run)
            // Several are asked for ahead of a reader who is served then: nothing to follow.
            if frame.run.count == 1 { newest = frame.run }
            try answer(run: frame.run)
            memory.noteAnswer()
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
        let end = Int(run.first) + Int(run.count)
        var first = Int(run.first)
        while first < end {
            if memory.isReleased(first, region: index) {
                first += 1
                continue
            }
            let isZero = memory.isZero(first, region: index)
            var next = first + 1
            while next < end, !memory.isReleased(next, region: index),
                memory.isZero(next, region: index) == isZero
            {
                next += 1
            }
            let part = PageRun(region: run.region, count: UInt32(next - first), first: UInt64(first))
            memory.claim(first..<next, region: index, isZero: isZero)
            if isZero {
                gather.add(.zeroes(part))
            } else {
                let frame = LaneFrame.pages(part, pageSize: memory.table.pageSize(ofRegion: index))
                try add(frame, memory.address(of: first, region: index))
            }
            if gather.isFull { try flush() }
            first = next
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
        memory.noteSent(bytes: try gather.flush(to: socket.stream))
    }
}

/// The peer closed a lane.
struct LaneClosed: Error, CustomStringConvertible {
    let peer: String
    var description: String { "\(peer) closed the connection" }
}

/// A frame that this side never receives.
struct UnexpectedFrame: Error, CustomStringConvertible {
    let frame: LaneFrame
    var description: String { "the peer sent \(frame.kind) with a \(frame.run), which a destination never sends" }
}

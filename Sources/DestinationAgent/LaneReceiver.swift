import LinuxSystem
import PageProtocol

/// The thread of one lane: receives frames into a buffer that stays in the cache, and places their pages from there.
struct LaneReceiver: ~Copyable {
    private let lane: Lane
    private let sockets: LaneSockets
    private let memory: ArrivingMemory
    private let buffer: UnsafeMutableRawBufferPointer
    /// Bytes that one receive may take beyond what a frame needs: a whole usual frame, and nothing of the next.
    private let readAhead: Int
    private var start = 0
    private var end = 0

    init(_ lane: Lane, sockets: LaneSockets, memory: ArrivingMemory) {
        self.lane = lane
        self.sockets = sockets
        self.memory = memory
        let largestPage = memory.ranges.map(\.pageSize).max() ?? 0
        let body = max(Int(Wire.maxRunBytes), largestPage)
        buffer = .allocate(byteCount: LaneFrame.encodedByteCount + body, alignment: 4096)
        readAhead = LaneFrame.encodedByteCount + (lane == .urgent ? largestPage : 64 * 4096)
    }

    deinit {
        buffer.deallocate()
    }

    mutating func run(_ onEvent: (DestinationAgent.Event) -> Void) {
        do {
            while true { try receiveFrame() }
        } catch let failure as PlacementFailure {
            onEvent(.failed(reason: failure.reason))
        } catch {
            // Told before the other lane ends because of it: the first reason is the true one.
            onEvent(.laneLost(lane, reason: "\(error)"))
            sockets.shutdown()
        }
    }

    @inline(__always)
    private mutating func receiveFrame() throws {
        let base = try fill(LaneFrame.encodedByteCount)
        let frame = try LaneFrame.decode(base)
        _ = try memory.table.extent(of: frame)
        switch frame.kind {
        case .pages:
            let length = LaneFrame.encodedByteCount + Int(frame.bodyByteCount)
            let base = try fill(length)
            try refuseUnasked(frame.run)
            try memory.place(frame.run, from: base + LaneFrame.encodedByteCount, origin: origin)
            start += length
        case .zeroes:
            try refuseUnasked(frame.run)
            try memory.place(frame.run, from: nil, origin: origin)
            start += LaneFrame.encodedByteCount
        case .pageRequest, .probe, .probeReply:
            throw UnexpectedFrame(frame: frame)
        }
    }

    private var origin: ArrivingMemory.Origin {
        switch lane {
        case .urgent: .demand
        case .bulk: .push
        }
    }

    /// On the urgent lane only what was asked for may come.
    @inline(__always)
    private func refuseUnasked(_ run: PageRun) throws {
        guard lane == .urgent else { return }
        let wanted = memory.wanted[Int(run.region)]
        for page in Int(run.first)..<Int(run.first) + Int(run.count) where !wanted.contains(page) {
            throw UnaskedPage(run: run)
        }
    }

    /// Makes at least `count` bytes available from `start` on.
    @inline(__always)
    private mutating func fill(_ count: Int) throws -> UnsafeRawPointer {
        guard let base = buffer.baseAddress else { preconditionFailure("a buffer that was allocated has a base") }
        if end - start < count, start > 0 {
            // The rest begins anew at the front, so that the same cache lines are used again and again.
            base.copyMemory(from: base + start, byteCount: end - start)
            end -= start
            start = 0
        }
        while end - start < count {
            let limit = min(buffer.count, start + max(count, readAhead))
            let received = try sockets.receive(
                on: lane,
                into: UnsafeMutableRawBufferPointer(rebasing: buffer[end..<limit])
            )
            guard received > 0 else { throw LaneClosed(peer: sockets.peer) }
            end += received
        }
        return UnsafeRawPointer(base + start)
    }
}

/// The peer closed a lane.
struct LaneClosed: Error, CustomStringConvertible {
    let peer: String
    var description: String { "\(peer) closed the connection" }
}

/// A page came on the urgent lane that nobody had asked for.
struct UnaskedPage: Error, CustomStringConvertible {
    let run: PageRun
    var description: String { "the peer sent a \(run), which nobody asked for" }
}

/// A frame that this side never receives.
struct UnexpectedFrame: Error, CustomStringConvertible {
    let frame: LaneFrame
    var description: String { "the peer sent \(frame.kind) with a \(frame.run), which a source never sends" }
}

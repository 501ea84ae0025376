import LinuxSystem
import PageProtocol
import Synchronization

/// One lane: receives frames into a buffer that stays in the cache, and places their pages from there.
struct LaneReceiver: ~Copyable {
    private let lane: AttachedLane
    private let memory: ArrivingMemory
    private let buffer: UnsafeMutableRawBufferPointer
    /// Bytes that one receive may take beyond what a frame needs: a whole usual frame, and nothing of the next.
    private let readAhead: Int
    /// Pages that have come whole, placed or not.
    private(set) var pagesReceived = 0
    private var start = 0
    private var end = 0
    /// Bytes of the frame at `start`, as far as they are known.
    private var missing = LaneFrame.encodedByteCount
    /// Pages that ZEROES have named on this lane, each as often as it was.
    private var zeroesNamed = 0
    /// A run whose bytes go straight into memory of another process, as far as they have come; meanwhile the buffer is
    /// empty.
    private var arriving: ArrivingRun?

    init(_ lane: AttachedLane, memory: ArrivingMemory) {
        self.lane = lane
        self.memory = memory
        let largestPage = memory.ranges.map(\.pageSize).max() ?? 0
        let body = max(Int(Wire.maxRunBytes), largestPage)
        buffer = .allocate(byteCount: LaneFrame.encodedByteCount + body, alignment: 4096)
        // Nothing is received ahead that may have to go elsewhere.
        let bodyAhead = memory.hasAliases ? 0 : lane.lane == .urgent ? largestPage : 64 * 4096
        readAhead = LaneFrame.encodedByteCount + bodyAhead
    }

    deinit {
        buffer.deallocate()
    }

    /// Receives once what has arrived, waiting for that, and places all frames that are whole.
    ///
    /// - Returns: false if the lane has ended, which was told.
    @inline(__always)
    mutating func receive(_ onEvent: (DestinationAgent.Event) -> Void) throws(PlacementFailure) -> Bool {
        do {
            if arriving == nil { try fill() } else { try receiveArriving(isWaiting: true) }
            while arriving == nil, let frame = try nextFrame() { try place(frame) }
            return true
        } catch let failure as PlacementFailure {
            throw failure
        } catch {
            // Told before the other lane ends because of it: the first reason is the true one.
            onEvent(.laneLost(lane.lane, reason: "\(error)"))
            lane.shutdown()
            return false
        }
    }

    /// The frame at `start`, if all of it is there.
    @inline(__always)
    private mutating func nextFrame() throws -> LaneFrame? {
        missing = LaneFrame.encodedByteCount
        guard end - start >= missing, let base = buffer.baseAddress else { return nil }
        let frame = try LaneFrame.decode(base + start)
        _ = try memory.table.extent(of: frame)
        if isAliased(frame) { return frame }
        missing = LaneFrame.encodedByteCount + Int(frame.bodyByteCount)
        return end - start >= missing ? frame : nil
    }

    /// Places the frame at `start`, and goes on to the next.
    @inline(__always)
    private mutating func place(_ frame: LaneFrame) throws {
        guard let base = buffer.baseAddress else { return }
        switch frame.kind {
        case .pages where isAliased(frame):
            try refuse(frame.run)
            (start, end) = (0, 0)
            arriving = ArrivingRun(frame.run)
            return try receiveArriving(isWaiting: false)
        case .pages:
            try refuse(frame.run)
            try memory.place(frame.run, from: base + start + LaneFrame.encodedByteCount, origin: origin)
        case .zeroes:
            try countZeroes(frame.run)
            try refuse(frame.run)
            try placeZeroes(frame.run)
        case .pageRequest, .probe, .probeReply:
            throw UnexpectedFrame(frame: frame)
        }
        pagesReceived += Int(frame.run.count)
        start += missing
    }

    /// How often ZEROES may name a page on one lane, in the mean. A page comes once there, and again where it was asked for
    /// meanwhile.
    private static let mostZeroes = 4

    /// ZEROES cost their sender 24 bytes, however many pages they name: what they make this side do has an end.
    private mutating func countZeroes(_ run: PageRun) throws {
        zeroesNamed += Int(run.count)
        guard zeroesNamed <= LaneReceiver.mostZeroes * memory.pagesTotal else {
            throw RepeatedZeroes(times: LaneReceiver.mostZeroes)
        }
    }

    /// Bytes of zeros that are placed, and pages that are passed over, before the end of the lane is looked for.
    private static let (zeroesAtOnce, passedAtOnce) = (4 << 20, 1 << 20)

    /// Places those pages of a run that are not here, some at a time.
    private func placeZeroes(_ run: PageRun) throws {
        let region = Int(run.region)
        let resident = memory.resident[region]
        let most = max(1, LaneReceiver.zeroesAtOnce / memory.ranges[region].pageSize)
        let end = Int(run.first) + Int(run.count)
        var page = Int(run.first)
        while page < end {
            guard !lane.hasEnded else { throw LaneClosed(peer: "this side") }
            let next = min(end, page + LaneReceiver.passedAtOnce)
            let clear = resident.firstClear(in: page..<next) ?? next
            if clear > page { memory.duplicate.add(clear - page, ordering: .relaxed) }
            page = clear
            guard page < next else { continue }
            let part = PageRun(region: run.region, count: UInt32(min(most, end - page)), first: UInt64(page))
            try memory.place(part, from: nil, origin: origin)
            page += Int(part.count)
        }
    }

    /// Whether the bytes behind a frame go straight into memory of another process.
    @inline(__always)
    private func isAliased(_ frame: LaneFrame) -> Bool {
        frame.kind == .pages && memory.aliases[Int(frame.run.region)] != nil
    }

    /// Receives once into memory of another process.
    ///
    /// - Parameter isWaiting: whether nothing may have arrived. The urgent lane's thread has waited for that already.
    private mutating func receiveArriving(isWaiting: Bool) throws {
        guard var run = arriving else { return }
        if isWaiting, lane.lane == .bulk { try lane.socket.stream.waitToReceive() }
        try memory.receive(&run, on: lane.socket.stream, dropping: buffer, origin: origin)
        arriving = run.isComplete(pageSize: memory.ranges[run.region].pageSize) ? nil : run
    }

    private var origin: ArrivingMemory.Origin {
        switch lane.lane {
        case .urgent: .demand
        case .bulk: .push
        }
    }

    /// Before LISTEN nothing may come, and on the urgent lane only what was asked for.
    @inline(__always)
    private func refuse(_ run: PageRun) throws {
        try memory.requireOpen(run)
        guard lane.lane == .urgent else { return }
        let wanted = memory.wanted[Int(run.region)]
        for page in Int(run.first)..<Int(run.first) + Int(run.count) where !wanted.contains(page) {
            throw UnaskedPage(run: run)
        }
    }

    /// Receives once, at most to the end of a usual frame, so that the same cache lines are used again and again.
    @inline(__always)
    private mutating func fill() throws {
        guard let base = buffer.baseAddress else { preconditionFailure("a buffer that was allocated has a base") }
        if start > 0 {
            // What is left of a frame begins anew at the front.
            base.copyMemory(from: base + start, byteCount: end - start)
            end -= start
            start = 0
        }
        let limit = min(buffer.count, max(missing, readAhead))
        let socket = lane.socket
        let received = try socket.stream.receive(into: UnsafeMutableRawBufferPointer(rebasing: buffer[end..<limit]))
        guard received > 0 else { throw LaneClosed(peer: socket.stream.peer) }
        end += received
    }
}

/// The peer closed a lane.
struct LaneClosed: Error, CustomStringConvertible {
    let peer: String
    var description: String { "\(peer) closed the connection" }
}

/// A page came before the workload was stopped.
struct PagesBeforeListen: Error, CustomStringConvertible {
    let run: PageRun
    var description: String { "the peer sent a \(run) before LISTEN" }
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

/// A peer that sends the same zeros again and again.
struct RepeatedZeroes: Error, CustomStringConvertible {
    let times: Int
    var description: String { "the peer sent ZEROES for the same pages more often than \(times) times" }
}

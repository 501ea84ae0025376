import Compression
import LinuxSystem
import PageProtocol
import Synchronization
import Telemetry

/// Receives the frames of one lane into a buffer that stays in the cache, and places their pages from there.
struct LaneReceiver: ~Copyable {
    private let lane: AttachedLane
    private let memory: ArrivingMemory
    private let staging: StagingBuffer
    private var buffer: UnsafeMutableRawBufferPointer { staging.bytes }
    /// Inflates compressed pages; made for the first of them.
    private var inflater: Inflater?
    /// The bytes of the longest run that may come compressed.
    private let longestCompressed: Int
    /// The bytes that one receive may take beyond the current frame's need: one usual frame, and nothing of the next.
    private let readAhead: Int
    /// Pages that have arrived completely, whether or not they were placed.
    private(set) var pagesReceived = 0
    private var start = 0
    private var end = 0
    /// The length in bytes of the frame at `start`, as far as it is known.
    private var missing = LaneFrame.encodedByteCount
    /// Pages that ZEROES and compressed frames have named on this lane, counted each time.
    private var cheapPages = 0
    /// The run whose bytes are being received directly into memory of another process; the buffer is empty meanwhile.
    private var arriving: ArrivingRun?
    /// What ``take()`` has found; nil if nothing.
    private var taken: Result<Void, any Error>?

    init(_ lane: AttachedLane, memory: ArrivingMemory) {
        self.lane = lane
        self.memory = memory
        let largestPage = memory.ranges.map(\.pageSize).max() ?? 0
        let body = max(Int(Wire.maxRunBytes), largestPage)
        longestCompressed = min(body, Int(Wire.maxCompressedRunBytes))
        staging = StagingBuffer(byteCount: LaneFrame.encodedByteCount + body)
        // With aliases, no body is received ahead: its bytes may belong into the memory of another process.
        let bodyAhead = memory.hasAliases ? 0 : lane.lane == .urgent ? largestPage : 64 * 4096
        readAhead = LaneFrame.encodedByteCount + bodyAhead
    }

    /// Receives once without waiting; the next ``receive(onLeft:)`` then places what has arrived.
    ///
    /// - Returns: whether anything has arrived or the lane has ended; nil if only a wait can tell.
    @inline(__always)
    mutating func take() -> Bool? {
        guard arriving == nil else { return nil }
        guard taken == nil else { return true }
        do {
            guard try fill(isWaiting: false) else { return false }
            taken = .success(())
        } catch {
            taken = .failure(error)
        }
        return true
    }

    /// Waits for data unless ``take()`` has found some, receives once, and places every frame that is complete.
    ///
    /// - Parameter onLeft: called for each page that was prefetched, that the source leaves to the push, and that a
    ///   fault waits for by now.
    /// - Returns: false if the lane has ended, which was reported as ``PageFetcher/LaneEvent/lost(_:reason:)``.
    @inline(__always)
    mutating func receive(
        onLeft: (_ page: Int, _ region: Int) -> Void = { _, _ in }
    ) throws(PlacementFailure) -> Bool {
        do {
            if let taken {
                self.taken = nil
                try taken.get()
            } else if arriving == nil {
                try fill(isWaiting: true)
            } else {
                try receiveArriving(isWaiting: true)
            }
            while arriving == nil, let frame = try nextFrame() { try place(frame, onLeft) }
            return true
        } catch let failure as PlacementFailure {
            throw failure
        } catch {
            // Reported before the other lane ends because of this error: the first reason reported is the true one.
            lane.tell(.lost(lane.lane, reason: "\(error)"))
            lane.shutdown()
            return false
        }
    }

    /// The frame at `start`; nil until all of it has arrived.
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

    /// Places the pages of the frame at `start`, and advances to the next frame.
    @inline(__always)
    private mutating func place(_ frame: LaneFrame, _ onLeft: (_ page: Int, _ region: Int) -> Void) throws {
        guard let base = buffer.baseAddress else { return }
        memory.laneBytes.add(
            LaneFrame.encodedByteCount + Int(frame.bodyByteCount),
            kind: lane.lane == .urgent ? .urgent : .push,
            index: lane.index
        )
        switch frame.kind {
        case .pages where isAliased(frame):
            try refuse(frame.run)
            (start, end) = (0, 0)
            arriving = ArrivingRun(frame.run)
            return try receiveArriving(isWaiting: false)
        case .pages:
            try refuse(frame.run)
            try memory.place(frame.run, from: base + start + LaneFrame.encodedByteCount, origin: origin)
        case .pagesLZ4, .pagesZstd:
            try placeCompressed(frame, base + start + LaneFrame.encodedByteCount)
        case .zeroes:
            try countCheap(frame.run)
            try refuse(frame.run)
            try placeZeroes(frame.run)
        case .sent:
            try leave(frame.run, onLeft)
            start += missing
            return
        case .pageRequest, .probe, .probeReply, .aheadRequest:
            throw UnexpectedFrame(frame: frame, from: .source)
        }
        pagesReceived += Int(frame.run.count)
        start += missing
    }

    /// Inflates the pages of a frame, all of which has arrived, and places them.
    @inline(never)
    private mutating func placeCompressed(_ frame: LaneFrame, _ body: UnsafeMutableRawPointer) throws {
        guard lane.lane == .bulk, let codec = frame.kind.codec else { throw CompressedOnUrgent(run: frame.run) }
        guard lane.takes(codec) else { throw UnannouncedCodec(run: frame.run, codec: codec) }
        try countCheap(frame.run)
        try refuse(frame.run)
        if inflater == nil { inflater = Inflater(byteCount: longestCompressed) }
        let byteCount = Int(frame.run.count) * memory.ranges[Int(frame.run.region)].pageSize
        let bytes = UnsafeRawBufferPointer(start: body, count: Int(frame.bodyByteCount))
        do {
            guard let pages = try inflater?.inflate(bytes, by: codec, to: byteCount).baseAddress else { return }
            try memory.place(frame.run, from: pages, origin: origin)
        } catch let error as InflationError {
            throw WrongCompressed(run: frame.run, reason: error)
        }
    }

    /// Handles SENT: the source leaves these prefetched pages to the push.
    private func leave(_ run: PageRun, _ onLeft: (_ page: Int, _ region: Int) -> Void) throws {
        let region = Int(run.region)
        let pages = Int(run.first)..<Int(run.first) + Int(run.count)
        guard memory.faults.left(pages, region: region, onWaited: { onLeft($0, region) }) else {
            throw UnaskedSent(run: run)
        }
    }

    /// The limit on how often ZEROES and compressed frames may name each page of the memory on one lane, on average.
    ///
    /// A page normally arrives once on a lane, and once more if it was requested meanwhile.
    private static let mostRepeats = 4

    /// Bounds the work of frames that cost the sender few bytes for many pages.
    ///
    /// ZEROES have 24 bytes for any number of pages, and a frame of Zstandard may have 65 for a MiB.
    private mutating func countCheap(_ run: PageRun) throws {
        guard !lane.hasEnded else { throw LaneClosed(peer: "this side") }
        cheapPages += Int(run.count)
        guard cheapPages <= LaneReceiver.mostRepeats * memory.pagesTotal else {
            throw RepeatedPages(times: LaneReceiver.mostRepeats)
        }
    }

    /// The bytes of zeros placed, and the pages skipped, between two checks whether the lane has ended.
    private static let (zeroesAtOnce, passedAtOnce) = (4 << 20, 1 << 20)

    /// Places zeros for the pages of a run that are missing, in bounded steps.
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

    /// Whether the body of a frame is received directly into memory of another process.
    @inline(__always)
    private func isAliased(_ frame: LaneFrame) -> Bool {
        frame.kind == .pages && memory.aliases[Int(frame.run.region)] != nil
    }

    /// Receives once into memory of another process.
    ///
    /// - Parameter isWaiting: whether data may not have arrived yet. The thread of an urgent lane has already waited
    ///   for data.
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

    /// Refuses every page before LISTEN, and on an urgent lane every page that was not requested.
    @inline(__always)
    private func refuse(_ run: PageRun) throws {
        try memory.requireOpen(run)
        guard lane.lane == .urgent else { return }
        guard memory.faults.isWanted(run) else { throw UnaskedPage(run: run) }
    }

    /// Receives once, at most to the end of a usual frame, so that the same cache lines are reused.
    ///
    /// - Parameter isWaiting: whether to wait for data.
    /// - Returns: whether anything has arrived.
    @inline(__always)
    @discardableResult
    private mutating func fill(isWaiting: Bool) throws -> Bool {
        guard let base = buffer.baseAddress else { preconditionFailure("a buffer that was allocated has a base") }
        if start > 0 {
            // The rest of an incomplete frame moves to the front of the buffer.
            base.copyMemory(from: base + start, byteCount: end - start)
            end -= start
            start = 0
        }
        let limit = min(buffer.count, max(missing, readAhead))
        let socket = lane.socket
        let room = UnsafeMutableRawBufferPointer(rebasing: buffer[end..<limit])
        guard let received = try isWaiting ? socket.stream.receive(into: room) : socket.stream.receiveNow(into: room)
        else { return false }
        guard received > 0 else { throw LaneClosed(peer: socket.stream.peer) }
        end += received
        return true
    }
}

/// The error of a page that arrived before LISTEN.
struct PagesBeforeListen: Error, CustomStringConvertible {
    let run: PageRun
    var description: String { "the peer sent a \(run) before LISTEN" }
}

/// The error of a page that arrived on an urgent lane without a request.
struct UnaskedPage: Error, CustomStringConvertible {
    let run: PageRun
    var description: String { "the peer sent a \(run), which was not requested" }
}

/// The error of pages that came compressed on an urgent lane.
struct CompressedOnUrgent: Error, CustomStringConvertible {
    let run: PageRun
    var description: String { "the peer sent a \(run) compressed on an urgent lane, where pages come as they are" }
}

/// The error of pages that are compressed in a way that this side has not announced.
struct UnannouncedCodec: Error, CustomStringConvertible {
    let run: PageRun
    let codec: Codec
    var description: String {
        "the peer sent a \(run) compressed by \(codec.rawValue), which this side has not announced"
    }
}

/// The error of compressed bytes that are not those of their run.
struct WrongCompressed: Error, CustomStringConvertible {
    let run: PageRun
    let reason: InflationError
    var description: String { "the peer sent a \(run) compressed, and \(reason)" }
}

/// The error of a SENT for a page that was not prefetched.
struct UnaskedSent: Error, CustomStringConvertible {
    let run: PageRun
    var description: String { "the peer answered SENT for a \(run), which was not prefetched" }
}

/// The error of a peer that sends zeros or compressed pages for the same pages repeatedly.
struct RepeatedPages: Error, CustomStringConvertible {
    let times: Int
    var description: String {
        "the peer sent zeros or compressed pages for the same pages more often than \(times) times on average"
    }
}

import LinuxSystem
import PageProtocol

/// Places the pages that arrive on one bulk lane, and requests pages there ahead of their use: given runs first, then,
/// if the memory is filled, every page that is still missing.
///
/// A page that a fault waits for is requested on an urgent lane in addition.
struct BulkReceiver: ~Copyable {
    /// The limit on bytes of pages that were requested on this lane and have not arrived.
    private static let ahead = 2 << 20
    private static let batch = 64
    /// The pages that one request of the filling spans.
    private static let filledAtOnce = 32

    private let lane: AttachedLane
    private let memory: ArrivingMemory
    private var receiver: LaneReceiver
    private let runs: [PageRun]
    private var next = 0
    private var asked = 0
    /// The number of pages that had been requested when the last of `runs` was; nil before, and once that was told.
    private var askedForRuns: Int?
    private var filling: Filling?
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: batch * LaneFrame.encodedByteCount,
        alignment: 8
    )

    /// The progress of fetching all missing pages.
    private struct Filling {
        let nanosecondsPerByte: Double
        /// The earliest time of the next request.
        var due = MonotonicClock.now()
        var region = 0
        var page = 0

        /// The time that the next request must wait, in nanoseconds.
        var pause: UInt64 {
            let now = MonotonicClock.now()
            return due > now ? due - now : 0
        }

        /// Puts the next request off after a request for this many bytes.
        mutating func note(bytes: Int) {
            // Time in which nothing was requested is not made up for.
            due = max(due, MonotonicClock.now()) + UInt64(Double(bytes) * nanosecondsPerByte)
        }
    }

    init(_ lane: AttachedLane, fetching runs: [PageRun], filling rate: FillRate?, memory: ArrivingMemory) {
        self.lane = lane
        self.memory = memory
        self.runs = runs
        filling = rate.map { Filling(nanosecondsPerByte: 1e9 / Double($0.bytesPerSecond)) }
        receiver = LaneReceiver(lane, memory: memory)
    }

    deinit {
        buffer.deallocate()
    }

    /// Receives until the lane ends or pages can no longer be placed.
    mutating func run() {
        do {
            while true {
                ask()
                if let count = askedForRuns, receiver.pagesReceived >= count {
                    askedForRuns = nil
                    lane.tell(.everyRunFetched)
                }
                if receiver.pagesReceived >= asked, !lane.hasEnded, let pause = filling?.pause, pause > 0 {
                    // A wait for data would not end, because no page is on its way. If the lane has ended, the receiver
                    // reports that.
                    MonotonicClock.sleep(nanoseconds: min(pause, 20_000_000))
                } else {
                    guard try receiver.receive() else { return }
                    memory.bulk.note()
                }
            }
        } catch {
            lane.tell(.placementFailed(reason: "\(error)"))
        }
    }

    /// Requests pages up to the limit of pages on their way.
    private mutating func ask() {
        guard let base = buffer.baseAddress else { return }
        var used = 0
        while used < buffer.count, let run = nextRun() {
            LaneFrame.pageRequest(run).encode(into: base + used)
            used += LaneFrame.encodedByteCount
            asked += Int(run.count)
        }
        guard used > 0 else { return }
        do throws(SystemError) {
            try lane.socket.stream.send(UnsafeRawBufferPointer(rebasing: buffer[..<used]))
        } catch {
            // The receiver of the same socket reports the error.
            lane.shutdown()
        }
    }

    private func hasRoom(inRegion region: Int) -> Bool {
        (asked - receiver.pagesReceived) * memory.ranges[region].pageSize < BulkReceiver.ahead
    }

    /// The next pages to request; nil if there are none, or if enough pages are on their way.
    private mutating func nextRun() -> PageRun? {
        while next < runs.count {
            let run = runs[next]
            guard hasRoom(inRegion: Int(run.region)) else { return nil }
            next += 1
            if next == runs.count { askedForRuns = asked }
            guard !memory.faults.isResident(run) else { continue }
            if next == runs.count { askedForRuns = asked + Int(run.count) }
            return run
        }
        return nextMissing()
    }

    /// The next missing pages, each of which is requested once.
    private mutating func nextMissing() -> PageRun? {
        guard var state = filling, state.pause == 0 else { return nil }
        defer { filling = state }
        while state.region < memory.resident.count {
            guard hasRoom(inRegion: state.region) else { return nil }
            let (resident, size) = (memory.resident[state.region], memory.ranges[state.region].pageSize)
            guard let first = resident.firstClear(from: state.page) else {
                (state.region, state.page) = (state.region + 1, 0)
                continue
            }
            let longest = min(BulkReceiver.filledAtOnce, Int(PageRun.maxCount(pageSize: UInt32(size))))
            var end = first + 1
            while end < resident.pageCount, end - first < longest, !resident.contains(end) { end += 1 }
            state.page = end
            state.note(bytes: (end - first) * size)
            return PageRun(region: UInt32(state.region), count: UInt32(end - first), first: UInt64(first))
        }
        return nil
    }
}

/// How fast missing pages are fetched that nobody waits for.
package struct FillRate: Codable, Hashable, Sendable {
    /// Bytes in a second, at least 1.
    package let bytesPerSecond: UInt64

    /// As fast as the source sends.
    package static let unlimited = FillRate(bytesPerSecond: .max)

    /// Makes a rate; a rate of 0 counts as 1.
    package init(bytesPerSecond: UInt64) {
        self.bytesPerSecond = max(1, bytesPerSecond)
    }
}

import LinuxSystem
import PageProtocol
import Synchronization

/// The requests that are collected for one send.
struct RequestBatch: ~Copyable {
    static let capacity = 64
    /// The most pages of one prefetch request, few enough that the first run is placed while the next one still
    /// arrives.
    private static let longestRun = 16

    private let memory: ArrivingMemory
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: capacity * LaneFrame.encodedByteCount,
        alignment: 8
    )
    private var used = 0
    private var lane: AttachedLane?
    /// Whether requests were sent on the lane since anything last arrived there.
    private(set) var isAnswerDue = false
    /// The faults that wait for a page, since the previous look ahead.
    private var faults: [Fault] = []
    /// The most prefetch requests that are sent before the lane is read again.
    ///
    /// With more of them, each side could wait for the other to read, and neither would.
    private static let longestAhead = 512
    private var ahead = 0
    /// The place from which repeating requests continues; nil once every wanted page was requested again.
    private var again: (region: Int, page: Int)?
    /// The runs that were requested again in the latest step and may not have arrived.
    private var awaited: [PageRun] = []
    private var askedAgain: UInt64 = 0
    /// Nanoseconds after which runs that were requested again are no longer waited for: the source may bring them by
    /// the push only.
    private static let patience: UInt64 = 1_000_000_000

    init(memory: ArrivingMemory) {
        self.memory = memory
        faults.reserveCapacity(RequestBatch.capacity)
        awaited.reserveCapacity(RequestBatch.capacity)
    }

    deinit {
        buffer.deallocate()
    }

    /// Adds what a fault causes: a request for its page, unless that page was requested before.
    ///
    /// - Throws: the reason why a fault on a page that was placed before cannot be answered.
    @inline(__always)
    mutating func add(_ fault: Fault, now: UInt64) throws(PlacementFailure) {
        switch try memory.take(fault, now: now) {
        case .resident, .asked: return
        case .expected: faults.append(fault)
        case .request:
            faults.append(fault)
            append(region: fault.region, fault.page..<fault.page + 1)
        }
    }

    /// Passes the faults to a policy, which requests pages that no fault waits for yet.
    @inline(__always)
    mutating func lookAhead(by policy: inout some PrefetchPolicy) {
        ahead = 0
        for index in faults.indices { policy.fault(faults[index], in: &self) }
        memory.prefetchedUnused.store(policy.unused, ordering: .relaxed)
        forgetFaults()
    }

    /// Whether there are faults to pass to a policy.
    ///
    /// Without a lane the faults are dropped: nothing can be requested, and the next lane brings wanted pages first.
    @inline(__always)
    mutating func hasFaults() -> Bool {
        if lane == nil { forgetFaults() }
        return !faults.isEmpty
    }

    mutating func forgetFaults() {
        faults.removeAll(keepingCapacity: true)
    }

    @inline(__always)
    private mutating func append(region: Int, _ pages: Range<Int>, isAhead: Bool = false) {
        guard let lane, let base = buffer.baseAddress else { return }
        let run = PageRun(region: UInt32(region), count: UInt32(pages.count), first: UInt64(pages.lowerBound))
        let request: LaneFrame = isAhead && lane.answersAhead ? .aheadRequest(run) : .pageRequest(run)
        request.encode(into: base + used)
        used += LaneFrame.encodedByteCount
        if used == buffer.count { send() }
    }

    /// Sends the collected requests; a lane that breaks drops them, and they are repeated on the next lane.
    @inline(__always)
    mutating func send() {
        guard used > 0, let lane else { return }
        do throws(SystemError) {
            try lane.socket.stream.send(UnsafeRawBufferPointer(rebasing: buffer[..<used]))
        } catch {
            // The receiver of the same socket reports the error.
            lane.shutdown()
            self.lane = nil
        }
        used = 0
        isAnswerDue = true
    }

    /// Notes that something has arrived on the lane.
    @inline(__always)
    mutating func noteAnswer() { isAnswerDue = false }

    /// Switches to another lane.
    mutating func use(_ lane: AttachedLane?) {
        self.lane = lane
        used = 0
        isAnswerDue = false
        again = nil
        awaited.removeAll(keepingCapacity: true)
    }

    /// Repeats the request for a page that was requested on an earlier lane, or that the source left to the push.
    mutating func askAgain(_ page: Int, region: Int) {
        append(region: region, page..<page + 1)
    }

    /// Starts to repeat requests for all wanted pages that are missing, whichever thread requested them on earlier
    /// lanes.
    mutating func beginToAskAgain() { again = (0, 0) }

    /// Milliseconds after which ``askAgain()`` must be called even if nothing has arrived; `Int32.max` if it need not
    /// be.
    @inline(__always)
    var interval: Int32 { again == nil ? .max : 20 }

    /// Repeats the next requests, once the pages of the previous ones have arrived.
    ///
    /// The lane is read between two calls: the source answers while it receives requests, and stops reading when its
    /// answers are not read.
    @inline(__always)
    mutating func askAgain() {
        guard again != nil else { return }
        askForMore()
    }

    @inline(never)
    private mutating func askForMore() {
        guard lane != nil, var (region, page) = again else { return }
        let now = MonotonicClock.now()
        awaited.removeAll { [memory] in memory.faults.isResident($0) }
        guard awaited.isEmpty || now - askedAgain > RequestBatch.patience else { return }
        awaited.removeAll(keepingCapacity: true)
        askedAgain = now
        while region < memory.ranges.count {
            let longest = longestRun(inRegion: region)
            while let run = memory.faults.wantedRun(from: page, region: region, atMost: longest) {
                page = run.upperBound
                awaited.append(PageRun(region: UInt32(region), count: UInt32(run.count), first: UInt64(run.lowerBound)))
                append(region: region, run)
                if awaited.count == RequestBatch.capacity {
                    again = (region, page)
                    return send()
                }
            }
            (region, page) = (region + 1, 0)
        }
        again = nil
        send()
    }

    /// The most pages that one request may name.
    private func longestRun(inRegion region: Int) -> Int {
        min(RequestBatch.longestRun, Int(PageRun.maxCount(pageSize: UInt32(memory.ranges[region].pageSize))))
    }
}

extension RequestBatch: MissingPages {
    @inline(__always)
    func isMissing(_ page: Int, region: Int) -> Bool {
        memory.faults.isMissing(page, region: region)
    }

    @inline(__always)
    func hasFaulted(_ page: Int, region: Int) -> Bool {
        memory.faults.hasFaulted(page, region: region)
    }

    /// Requests the missing pages by as few runs as they form; only one thread at a time may call this.
    mutating func ask(_ pages: Range<Int>, region: Int) -> Int {
        let longestRun = longestRun(inRegion: region)
        var asked = 0
        var page = pages.lowerBound
        while page < pages.upperBound, ahead < RequestBatch.longestAhead {
            let count = memory.faults.expect(page..<min(pages.upperBound, page + longestRun), region: region)
            guard count > 0 else {
                page += 1
                continue
            }
            append(region: region, page..<page + count, isAhead: true)
            page += count
            asked += count
            ahead += 1
        }
        return asked
    }
}

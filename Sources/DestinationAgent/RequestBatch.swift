import LinuxSystem
import PageProtocol
import Synchronization

/// Requests on their way into one send.
struct RequestBatch: ~Copyable {
    static let capacity = 64
    /// Pages of a run that is asked for ahead: the first run is placed while the next still comes.
    private static let longestRun = 16

    private let memory: ArrivingMemory
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: capacity * LaneFrame.encodedByteCount,
        alignment: 8
    )
    private var used = 0
    private var lane: AttachedLane?
    /// Those that somebody waits for since the last look ahead.
    private var faults: [Fault] = []
    /// Most requests for what nobody waits for that leave before the lane is read again: with more of them both sides could
    /// wait for room, and neither read.
    private static let longestAhead = 512
    private var ahead = 0
    /// Where asking again goes on; nil once all was asked for.
    private var again: (region: Int, page: Int)?
    /// What was asked for again last and is not there.
    private var awaited: [PageRun] = []
    private var askedAgain: UInt64 = 0
    /// Nanoseconds after which what was asked for again is not waited for: its source may bring it by the push only.
    private static let patience: UInt64 = 1_000_000_000

    init(memory: ArrivingMemory) {
        self.memory = memory
        faults.reserveCapacity(RequestBatch.capacity)
        awaited.reserveCapacity(RequestBatch.capacity)
    }

    deinit {
        buffer.deallocate()
    }

    /// Adds the page that holds a fault's address, unless it has been asked for.
    @inline(__always)
    mutating func add(address: UInt64, thread: UInt32, now: UInt64) throws(PlacementFailure) {
        for region in memory.ranges.indices {
            let range = memory.ranges[region]
            guard address >= range.address, address - range.address < range.byteCount else { continue }
            let page = Int(address - range.address) / range.pageSize
            let isNew = memory.wanted[region].insert(page)
            if memory.resident[region].contains(page) { return try memory.answerAgain(page, region: region) }
            guard isNew else {
                // Asked for ahead and on its way: from now on somebody waits for it.
                guard memory.expected[region].remove(page) else { return }
                faults.append(Fault(region: region, page: page, thread: thread))
                memory.touches?.note(page, region: region, now: now)
                return try wait(for: page, region: region, now: now)
            }
            memory.inFlight.begin(region: region, page: page, now: now)
            // Who placed the page just now has not found the fault, unless this finds the page.
            if memory.resident[region].contains(page) {
                _ = memory.inFlight.end(region: region, page: page)
                return try memory.answerAgain(page, region: region)
            }
            faults.append(Fault(region: region, page: page, thread: thread))
            memory.touches?.note(page, region: region, now: now)
            return append(region: region, page..<page + 1)
        }
    }

    /// Notes that a fault waits for a page that is on its way.
    @inline(__always)
    private func wait(for page: Int, region: Int, now: UInt64) throws(PlacementFailure) {
        memory.inFlight.begin(region: region, page: page, now: now)
        // Who placed the page just now has not found the fault, unless this finds the page.
        guard memory.resident[region].contains(page) else { return }
        _ = memory.inFlight.end(region: region, page: page)
        try memory.answerAgain(page, region: region)
    }

    /// Tells a policy of the faults, which asks for pages that nobody waits for yet.
    @inline(__always)
    mutating func lookAhead(by policy: inout some PrefetchPolicy) {
        ahead = 0
        for index in faults.indices { policy.fault(faults[index], in: &self) }
        memory.prefetchedUnused.store(policy.unused, ordering: .relaxed)
        forgetFaults()
    }

    /// Whether there are faults to look ahead of. Without a lane nothing is asked for, and the next one brings what is
    /// waited for first.
    @inline(__always)
    mutating func hasFaults() -> Bool {
        if lane == nil { forgetFaults() }
        return !faults.isEmpty
    }

    mutating func forgetFaults() {
        faults.removeAll(keepingCapacity: true)
    }

    @inline(__always)
    private mutating func append(region: Int, _ pages: Range<Int>) {
        guard lane != nil, let base = buffer.baseAddress else { return }
        let run = PageRun(region: UInt32(region), count: UInt32(pages.count), first: UInt64(pages.lowerBound))
        LaneFrame.pageRequest(run).encode(into: base + used)
        used += LaneFrame.encodedByteCount
        if used == buffer.count { send() }
    }

    /// Sends what was added. A lane that breaks keeps it: it is asked for again on the next.
    @inline(__always)
    mutating func send() {
        guard used > 0, let lane else { return }
        do throws(SystemError) {
            try lane.socket.stream.send(UnsafeRawBufferPointer(rebasing: buffer[..<used]))
        } catch {
            // The receiver of the same socket tells it.
            lane.shutdown()
            self.lane = nil
        }
        used = 0
    }

    /// Turns to another lane.
    mutating func use(_ lane: AttachedLane?) {
        self.lane = lane
        used = 0
        again = nil
        awaited.removeAll(keepingCapacity: true)
    }

    /// Asks for a page that was asked for on a lane that has ended.
    mutating func askAgain(_ page: Int, region: Int) {
        append(region: region, page..<page + 1)
    }

    /// From now on ``askAgain()`` asks for all that is waited for, whoever has asked for it on lanes that have ended.
    mutating func beginToAskAgain() { again = (0, 0) }

    /// Milliseconds after which ``askAgain()`` is to be called though nothing has come; the greatest number if it need not.
    @inline(__always)
    var interval: Int32 { again == nil ? .max : 20 }

    /// Asks for more of what is waited for, once what it asked for last is there. Between two calls the lane is read: the
    /// source answers while it is asked, and reads nothing more when its answers are not read.
    @inline(__always)
    mutating func askAgain() {
        guard again != nil else { return }
        askForMore()
    }

    @inline(never)
    private mutating func askForMore() {
        guard lane != nil, var (region, page) = again else { return }
        let now = MonotonicClock.now()
        awaited.removeAll { [memory] in memory.isResident($0) }
        guard awaited.isEmpty || now - askedAgain > RequestBatch.patience else { return }
        awaited.removeAll(keepingCapacity: true)
        askedAgain = now
        while region < memory.ranges.count {
            let (wanted, resident) = (memory.wanted[region], memory.resident[region])
            let longest = longestRun(inRegion: region)
            while wanted.count > 0, page < wanted.pageCount {
                let first = page
                while page < wanted.pageCount, page - first < longest, wanted.contains(page), !resident.contains(page) {
                    page += 1
                }
                guard page > first else {
                    page += 1
                    continue
                }
                awaited.append(PageRun(region: UInt32(region), count: UInt32(page - first), first: UInt64(first)))
                append(region: region, first..<page)
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

    /// Pages that one request ahead asks for at most.
    private func longestRun(inRegion region: Int) -> Int {
        min(RequestBatch.longestRun, Int(PageRun.maxCount(pageSize: UInt32(memory.ranges[region].pageSize))))
    }
}

extension RequestBatch: MissingPages {
    @inline(__always)
    func isMissing(_ page: Int, region: Int) -> Bool {
        !memory.wanted[region].contains(page) && !memory.resident[region].contains(page)
    }

    /// Asks in as few runs as the pages make.
    mutating func ask(_ pages: Range<Int>, region: Int) -> Int {
        let (wanted, resident) = (memory.wanted[region], memory.resident[region])
        let longestRun = longestRun(inRegion: region)
        var asked = 0
        var page = pages.lowerBound
        while page < pages.upperBound, ahead < RequestBatch.longestAhead {
            let first = page
            let end = min(pages.upperBound, first + longestRun)
            while page < end, !resident.contains(page), wanted.insert(page) {
                memory.expected[region].insert(page)
                page += 1
            }
            asked += page - first
            guard page > first else {
                page += 1
                continue
            }
            append(region: region, first..<page)
            ahead += 1
        }
        return asked
    }
}

import LinuxSystem
import PageProtocol

/// Requests on their way into one send.
struct RequestBatch: ~Copyable {
    static let capacity = 64

    private let memory: ArrivingMemory
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: capacity * LaneFrame.encodedByteCount,
        alignment: 8
    )
    private var used = 0
    private var lanes: LaneSockets?

    init(memory: ArrivingMemory) {
        self.memory = memory
    }

    deinit {
        buffer.deallocate()
    }

    /// Adds the page that holds a fault's address, unless it has been asked for.
    @inline(__always)
    mutating func add(address: UInt64, now: UInt64) throws(PlacementFailure) {
        for region in memory.ranges.indices {
            let range = memory.ranges[region]
            guard address >= range.address, address - range.address < range.byteCount else { continue }
            let page = Int(address - range.address) / range.pageSize
            let isNew = memory.wanted[region].insert(page)
            if memory.resident[region].contains(page) { return try memory.answerAgain(page, region: region) }
            guard isNew else { return }
            memory.inFlight.begin(region: region, page: page, now: now)
            // Who placed the page just now has not found the fault, unless this finds the page.
            if memory.resident[region].contains(page) {
                _ = memory.inFlight.end(region: region, page: page)
                return try memory.answerAgain(page, region: region)
            }
            append(region: region, page: page)
            return
        }
    }

    @inline(__always)
    private mutating func append(region: Int, page: Int) {
        guard lanes != nil, let base = buffer.baseAddress else { return }
        let run = PageRun(region: UInt32(region), count: 1, first: UInt64(page))
        LaneFrame.pageRequest(run).encode(into: base + used)
        used += LaneFrame.encodedByteCount
        if used == buffer.count { send() }
    }

    /// Sends what was added. A lane that breaks keeps it: it is asked for again on the next.
    @inline(__always)
    mutating func send() {
        guard used > 0, let lanes else { return }
        do throws(SystemError) {
            try lanes.urgent.send(UnsafeRawBufferPointer(rebasing: buffer[..<used]))
        } catch {
            // The receiver of the same socket tells it.
            lanes.shutdown()
            self.lanes = nil
        }
        used = 0
    }

    /// Turns to other lanes and asks there for all that is waited for.
    mutating func use(_ lanes: LaneSockets?) {
        self.lanes = lanes
        used = 0
        guard lanes != nil else { return }
        for (region, wanted) in memory.wanted.enumerated() where wanted.count > 0 {
            for page in 0..<wanted.pageCount where wanted.contains(page) && !memory.resident[region].contains(page) {
                append(region: region, page: page)
            }
        }
        send()
    }
}

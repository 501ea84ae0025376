import LinuxSystem

/// The least code that answers page requests and pushes memory: no protocol, no record of what was sent.
struct BareService: ~Copyable {
    private let lanes: BenchLanes
    private let region: MemoryRegion
    private let chunk: Int
    private var urgent: JoinedThread?
    private let bulk = ThreadGroup()

    init(_ region: MemoryRegion, _ setup: BenchSetup, lanes: BenchLanes) throws(SystemError) {
        self.lanes = lanes
        self.region = region
        chunk = setup.chunk
        urgent = try JoinedThread(name: "bare-serve") {
            lanes.untilHungUp { () throws(SystemError) in try BareService.answer(region, lanes, setup.waiting) }
        }
    }

    /// Pushes an equal part of the memory on each bulk lane.
    func push() throws(SystemError) {
        for (index, lane) in lanes.bulk.enumerated() {
            let pages = lanes.part(index, of: region.pageCount)
            try bulk.run("bare-push") { [lanes, region, chunk] in
                lanes.untilHungUp { () throws(SystemError) in
                    for page in stride(from: pages.lowerBound, to: pages.upperBound, by: chunk) {
                        let count = min(chunk, pages.upperBound - page)
                        try lane.stream.send(
                            UnsafeRawBufferPointer(start: region.page(page), count: count * region.pageSize)
                        )
                    }
                }
            }
        }
    }

    deinit {
        // The threads end when their lanes do; the thread of the urgent lane is joined when it is dropped.
        lanes.shutdown()
        bulk.join()
    }

    private static func answer(
        _ region: MemoryRegion,
        _ lanes: BenchLanes,
        _ waiting: BenchSetup.Waiting
    ) throws(SystemError) {
        let number = UnsafeMutableRawBufferPointer.allocate(byteCount: 8, alignment: 8)
        defer { number.deallocate() }
        while try lanes.receiveUrgent(exactly: number, waiting) == 8 {
            let page = number.load(as: UInt64.self)
            guard page < UInt64(region.pageCount) else { return }
            try lanes.urgent.stream.send(UnsafeRawBufferPointer(start: region.page(Int(page)), count: region.pageSize))
        }
    }
}

/// What the bare code does with its connections, which several of its threads use.
extension BenchLanes {
    func shutdown() {
        for socket in [urgent] + bulk { socket.stream.shutdown() }
    }

    /// The pages of a bulk lane, if each carries an equal part.
    func part(_ index: Int, of pageCount: Int) -> Range<Int> {
        pageCount * index / bulk.count..<pageCount * (index + 1) / bulk.count
    }

    /// Receives as many bytes from the urgent lane as the buffer holds, or fewer if the peer has hung up.
    func receiveUrgent(
        exactly buffer: UnsafeMutableRawBufferPointer,
        _ waiting: BenchSetup.Waiting
    ) throws(SystemError) -> Int {
        guard waiting == .polling else { return try urgent.stream.receive(exactly: buffer) }
        var filled = 0
        while filled < buffer.count {
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
            guard let received = try urgent.stream.receiveNow(into: room) else {
                JoinedThread.yield()
                continue
            }
            if received == 0 { break }
            filled += received
        }
        return filled
    }

    /// Runs `body`, which throws at the latest when the peer hangs up, as it does after each round.
    func untilHungUp(_ body: () throws(SystemError) -> Void) {
        do throws(SystemError) {
            try body()
        } catch {
            // The near end notices the error by the end of its lanes.
            shutdown()
        }
    }
}

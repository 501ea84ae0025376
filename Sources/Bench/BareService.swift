import LinuxSystem

/// The least code that answers page requests and pushes memory: no protocol, no record of what was sent.
struct BareService: ~Copyable {
    private let lanes: BareLanes
    private let region: MemoryRegion
    private let chunk: Int
    private var urgent: JoinedThread?
    private var bulk: JoinedThread?

    init(_ region: MemoryRegion, _ setup: BenchSetup, lanes: BareLanes) throws(SystemError) {
        self.lanes = lanes
        self.region = region
        chunk = setup.chunk
        urgent = try JoinedThread(name: "bare-serve") {
            lanes.untilHungUp { () throws(SystemError) in try BareService.answer(region, lanes, setup.waiting) }
        }
    }

    mutating func push() throws(SystemError) {
        bulk = try JoinedThread(name: "bare-push") { [lanes, region, chunk] in
            lanes.untilHungUp { () throws(SystemError) in
                for page in stride(from: 0, to: region.pageCount, by: chunk) {
                    let count = min(chunk, region.pageCount - page)
                    try lanes.bulk.send(
                        UnsafeRawBufferPointer(start: region.page(page), count: count * region.pageSize)
                    )
                }
            }
        }
    }

    deinit {
        // The threads end when their lanes do, and are joined when they are dropped.
        lanes.shutdown()
    }

    private static func answer(
        _ region: MemoryRegion,
        _ lanes: BareLanes,
        _ waiting: BenchSetup.Waiting
    ) throws(SystemError) {
        let number = UnsafeMutableRawBufferPointer.allocate(byteCount: 8, alignment: 8)
        defer { number.deallocate() }
        while try lanes.receiveUrgent(exactly: number, waiting) == 8 {
            let page = number.load(as: UInt64.self)
            guard page < UInt64(region.pageCount) else { return }
            try lanes.urgent.send(UnsafeRawBufferPointer(start: region.page(Int(page)), count: region.pageSize))
        }
    }
}

/// The urgent and the bulk connection of the bare code, used by several threads.
final class BareLanes: Sendable {
    let urgent: StreamSocket
    let bulk: StreamSocket

    init(_ lanes: consuming LanePair) {
        urgent = lanes.urgent
        bulk = lanes.bulk
    }

    func shutdown() {
        urgent.shutdown()
        bulk.shutdown()
    }

    /// Receives as many bytes from the urgent lane as the buffer holds, or fewer if the peer has hung up.
    func receiveUrgent(
        exactly buffer: UnsafeMutableRawBufferPointer,
        _ waiting: BenchSetup.Waiting
    ) throws(SystemError) -> Int {
        guard waiting == .polling else { return try urgent.receive(exactly: buffer) }
        var filled = 0
        while filled < buffer.count {
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
            guard let received = try urgent.receiveNow(into: room) else {
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
            // The near end notices the error by the end of both lanes.
            shutdown()
        }
    }
}

import LinuxSystem
import Synchronization

/// The least code that places pages: one thread requests the touched pages, another on each bulk
/// lane takes the pushed ones.
final class BareRig: Rig {
    let memory: RigMemory
    var pageCount: Int { memory.region.pageCount - 1 }
    private let lanes: BenchLanes
    private let threads = ThreadGroup()

    init(_ setup: BenchSetup, lanes: BenchLanes) throws {
        let pageCount = setup.pageCount
        // A touch of the last page ends the thread that waits for faults.
        let region = try MemoryRegion(name: "bench", pageCount: pageCount + 1)
        let userfaultfd = try Userfaultfd(isBlocking: setup.waiting == .sleeping)
        try userfaultfd.register(region.range)
        let memory = RigMemory(region, userfaultfd)
        let pages = PageRange(address: region.range.address, pageSize: 4096, pageCount: pageCount)
        self.memory = memory
        self.lanes = lanes
        try threads.run("bare-faults") {
            do {
                try BareRig.serve(memory, lanes, setup.waiting)
                memory.fail("the far end has closed the urgent lane", region.range)
            } catch {
                memory.fail("\(error)", region.range)
            }
        }
        let left = Left(lanes.bulk.count)
        for (index, lane) in lanes.bulk.enumerated() {
            let part = lanes.part(index, of: pageCount)
            try threads.run("bare-place") {
                do {
                    guard try BareRig.place(part, in: memory, setup.chunk, lane) else {
                        return memory.fail("the far end has closed the bulk lane", pages)
                    }
                    if left.lanes.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 { memory.complete() }
                } catch {
                    memory.fail("\(error)", pages)
                }
            }
        }
    }

    /// The bulk lanes whose part has not arrived.
    private final class Left: Sendable {
        let lanes: Atomic<Int>

        init(_ lanes: Int) { self.lanes = Atomic(lanes) }
    }

    func end() {
        for lane in lanes.bulk { lane.stream.shutdown() }
        let last = memory.region.page(memory.region.pageCount - 1)
        _ = last.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .relaxed)
        lanes.shutdown()
        threads.join()
    }

    /// Serves faults until the last page is touched, or the far end is gone.
    private static func serve(_ memory: RigMemory, _ lanes: BenchLanes, _ waiting: BenchSetup.Waiting) throws {
        let stage = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { stage.deallocate() }
        guard let base = stage.baseAddress else { return }
        var events = Userfaultfd.EventBuffer(capacity: 1)
        var number: UInt64 = 0
        while true {
            try memory.userfaultfd.read(into: &events)
            guard events.count > 0 else {
                JoinedThread.yield()
                continue
            }
            guard case .fault(let address, _, _) = events[0] else { continue }
            let page = address & ~4095
            number = (page - memory.region.range.address) / 4096
            if number == UInt64(memory.region.pageCount - 1) { return }
            try withUnsafeBytes(of: &number) { try lanes.urgent.stream.send($0) }
            guard try lanes.receiveUrgent(exactly: stage, waiting) == 4096 else { return }
            if memory.userfaultfd.copy(to: page, from: base, byteCount: 4096) == .present {
                memory.userfaultfd.wake(page, byteCount: 4096)
            }
        }
    }

    /// Places the pushed pages of a lane as they arrive.
    ///
    /// - Returns: whether every page has arrived; false if the far end was gone before.
    private static func place(
        _ pages: Range<Int>,
        in memory: RigMemory,
        _ chunk: Int,
        _ lane: SharedSocket
    ) throws -> Bool {
        let stage = UnsafeMutableRawBufferPointer.allocate(byteCount: chunk * 4096, alignment: 4096)
        defer { stage.deallocate() }
        var page = pages.lowerBound
        while page < pages.upperBound {
            let count = min(chunk, pages.upperBound - page)
            let bytes = UnsafeMutableRawBufferPointer(rebasing: stage[..<(count * 4096)])
            guard try lane.stream.receive(exactly: bytes) == bytes.count, let base = bytes.baseAddress
            else { return false }
            var done = 0
            while done < count {
                let address = memory.region.range.address(ofPage: page + done)
                let placement = memory.userfaultfd.copy(
                    to: address,
                    from: base + done * 4096,
                    byteCount: (count - done) * 4096
                )
                switch placement {
                case .placed(let bytes): done += bytes / 4096
                case .present: done += 1
                case .again: continue
                case .unmapped, .gone, .noMemory, .failed: throw BenchFailure("cannot place a page: \(placement)")
                }
            }
            page += count
        }
        return true
    }
}

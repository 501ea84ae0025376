import LinuxSystem
import Synchronization

/// The least code that places pages: one thread requests the touched pages, another takes the pushed ones.
final class BareRig: Rig {
    let memory: RigMemory
    var pageCount: Int { memory.region.pageCount - 1 }
    private let lanes: BareLanes
    private let threads: Threads

    private final class Threads: Sendable {
        let faults: JoinedThread
        let bulk: JoinedThread

        init(faults: consuming JoinedThread, bulk: consuming JoinedThread) {
            self.faults = faults
            self.bulk = bulk
        }
    }

    init(_ setup: BenchSetup, lanes: BareLanes) throws {
        let pageCount = setup.pageCount
        // A touch of the last page ends the thread that waits for faults.
        let region = try MemoryRegion(name: "bench", pageCount: pageCount + 1)
        let userfaultfd = try Userfaultfd(isBlocking: setup.waiting == .sleeping)
        try userfaultfd.register(region.range)
        let memory = RigMemory(region, userfaultfd)
        let pages = PageRange(address: region.range.address, pageSize: 4096, pageCount: pageCount)
        self.memory = memory
        self.lanes = lanes
        threads = Threads(
            faults: try JoinedThread(name: "bare-faults") {
                do {
                    try BareRig.serve(memory, lanes, setup.waiting)
                    memory.fail("the far end has closed the urgent lane", region.range)
                } catch {
                    memory.fail("\(error)", region.range)
                }
            },
            bulk: try JoinedThread(name: "bare-place") {
                do {
                    if try BareRig.place(memory, setup.chunk, lanes) { return memory.complete() }
                    memory.fail("the far end has closed the bulk lane", pages)
                } catch {
                    memory.fail("\(error)", pages)
                }
            }
        )
    }

    func end() {
        lanes.bulk.shutdown()
        let last = memory.region.page(memory.region.pageCount - 1)
        _ = last.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .relaxed)
        lanes.shutdown()
    }

    /// Serves faults until the last page is touched, or the far end is gone.
    private static func serve(_ memory: RigMemory, _ lanes: BareLanes, _ waiting: BenchSetup.Waiting) throws {
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
            try withUnsafeBytes(of: &number) { try lanes.urgent.send($0) }
            guard try lanes.receiveUrgent(exactly: stage, waiting) == 4096 else { return }
            if memory.userfaultfd.copy(to: page, from: base, byteCount: 4096) == .present {
                memory.userfaultfd.wake(page, byteCount: 4096)
            }
        }
    }

    /// Places pushed pages as they arrive.
    ///
    /// - Returns: whether every page has arrived; false if the far end was gone before.
    private static func place(_ memory: RigMemory, _ chunk: Int, _ lanes: BareLanes) throws -> Bool {
        let stage = UnsafeMutableRawBufferPointer.allocate(byteCount: chunk * 4096, alignment: 4096)
        defer { stage.deallocate() }
        let pageCount = memory.region.pageCount - 1
        var page = 0
        while page < pageCount {
            let count = min(chunk, pageCount - page)
            let bytes = UnsafeMutableRawBufferPointer(rebasing: stage[..<(count * 4096)])
            guard try lanes.bulk.receive(exactly: bytes) == bytes.count, let base = bytes.baseAddress
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

import LinuxSystem

/// The least code by which the thread that touches a page fetches the page itself.
///
/// `@unchecked Sendable`: only one thread touches pages, and only that thread uses `stage`.
final class BareInThreadRig: Rig, BusFaultResolver, @unchecked Sendable {
    let memory: RigMemory
    var pageCount: Int { memory.region.pageCount }
    private let lanes: BenchLanes
    private let waiting: BenchSetup.Waiting
    private let stage: UnsafeMutableRawBufferPointer

    init(_ setup: BenchSetup, lanes: BenchLanes) throws {
        let region = try MemoryRegion(name: "bench", pageCount: setup.pageCount)
        let userfaultfd = try Userfaultfd(features: .sigbus)
        try userfaultfd.register(region.range)
        memory = RigMemory(region, userfaultfd)
        self.lanes = lanes
        waiting = setup.waiting
        stage = .allocate(byteCount: 4096, alignment: 4096)
        BusFaults.add(self)
    }

    deinit {
        stage.deallocate()
    }

    func end() {
        BusFaults.remove(self)
        lanes.shutdown()
    }

    func owns(_ address: UInt64) -> Bool {
        address >= memory.region.range.address && address - memory.region.range.address < memory.region.range.byteCount
    }

    func resolve(_ address: UInt64) {
        let page = address & ~4095
        var number = (page - memory.region.range.address) / 4096
        do throws(SystemError) {
            try withUnsafeBytes(of: &number) { (bytes) throws(SystemError) in try lanes.urgent.stream.send(bytes) }
            guard try lanes.receiveUrgent(exactly: stage, waiting) == 4096, let base = stage.baseAddress else {
                return memory.fail("the far end has closed the urgent lane", memory.region.range)
            }
            _ = memory.userfaultfd.copy(to: page, from: base, byteCount: 4096)
        } catch {
            memory.fail("\(error)", memory.region.range)
        }
    }
}

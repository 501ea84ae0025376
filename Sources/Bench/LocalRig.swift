import LinuxSystem
import Synchronization

/// The least code that answers faults from memory at hand.
final class LocalRig: Rig {
    let memory: RigMemory
    var pageCount: Int { memory.region.pageCount - 1 }
    private let thread: Handler

    private final class Handler: Sendable {
        let thread: JoinedThread

        init(_ memory: RigMemory) throws(SystemError) {
            thread = try JoinedThread(name: "local-faults") {
                do {
                    try LocalRig.serve(memory)
                } catch {
                    memory.fail("\(error)", memory.region.range)
                }
            }
        }
    }

    init(pageCount: Int) throws {
        // A touch of the last page ends the thread that waits for faults.
        let region = try MemoryRegion(name: "bench", pageCount: pageCount + 1)
        let userfaultfd = try Userfaultfd(isBlocking: true)
        try userfaultfd.register(region.range)
        memory = RigMemory(region, userfaultfd)
        thread = try Handler(memory)
    }

    func end() {
        let last = memory.region.page(memory.region.pageCount - 1)
        _ = last.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .relaxed)
    }

    private static func serve(_ memory: RigMemory) throws {
        let stage = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { stage.deallocate() }
        guard let base = stage.baseAddress else { return }
        var events = Userfaultfd.EventBuffer(capacity: 1)
        while true {
            try memory.userfaultfd.read(into: &events)
            guard events.count > 0, case .fault(let address, _, _) = events[0] else { continue }
            let page = address & ~4095
            let number = (page - memory.region.range.address) / 4096
            base.storeBytes(of: number + 1, as: UInt64.self)
            _ = memory.userfaultfd.copy(to: page, from: base, byteCount: 4096)
            if number == UInt64(memory.region.pageCount - 1) { return }
        }
    }
}

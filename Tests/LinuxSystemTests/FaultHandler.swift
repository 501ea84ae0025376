import LinuxSystem
import Synchronization

/// A region that is registered with a userfaultfd, and a thread that answers its faults.
final class FaultHandler: Sendable {
    let region: MemoryRegion
    let userfaultfd: Userfaultfd
    let faults = Atomic<Int>(0)
    private let stop: EventDescriptor
    private let thread = Mutex<JoinedThread?>(nil)

    /// Registers `pageCount` pages.
    init(pageCount: Int) throws {
        region = try MemoryRegion(name: "faults", pageCount: pageCount)
        userfaultfd = try Userfaultfd()
        stop = try EventDescriptor()
        try userfaultfd.register(region.range)
    }

    /// Starts a thread that calls `answer` with the page of each fault.
    func start(_ answer: @escaping @Sendable (FaultHandler, Int) -> Void) throws {
        var thread: JoinedThread? = try JoinedThread(name: "answer") { [self] in
            var events = Userfaultfd.EventBuffer(capacity: 8)
            while (try? userfaultfd.wait(or: stop)) == .events {
                guard (try? userfaultfd.read(into: &events)) != nil else { return }
                for index in 0..<events.count {
                    guard case .fault(let address, _, _) = events[index] else { continue }
                    faults.add(1, ordering: .relaxed)
                    answer(self, Int(address - region.range.address) / region.pageSize)
                }
            }
        }
        self.thread.withLock { swap(&thread, &$0) }
    }

    /// Ends the thread and unregisters the memory, so that no thread waits for a page any more.
    func end() {
        stop.raise()
        var thread: JoinedThread? = nil
        self.thread.withLock { swap(&thread, &$0) }
        thread = nil
        try? userfaultfd.unregister(region.range)
    }

    func address(_ page: Int) -> UInt64 { region.range.address(ofPage: page) }

    /// Reads the first byte of a page, which may block until the page is placed.
    func read(_ page: Int) -> UInt8 { region.page(page).load(as: UInt8.self) }
}

/// Whole pages, each filled with one byte.
func pages(_ bytes: UInt8...) throws -> MemoryRegion {
    let region = try MemoryRegion(name: "content", pageCount: bytes.count)
    for (index, byte) in bytes.enumerated() {
        region.page(index).initializeMemory(as: UInt8.self, repeating: byte, count: region.pageSize)
    }
    return region
}

import LinuxSystem
import Synchronization

/// Memory at the near end whose pages arrive as they are touched or pushed.
protocol Rig: AnyObject, Sendable {
    var memory: RigMemory { get }
    /// Pages that may be touched, from the first one on.
    var pageCount: Int { get }
    /// Ends the service of the memory, after which no thread may wait for a page.
    func end()
}

/// The memory of a rig, and whether its pages have arrived.
final class RigMemory: Sendable {
    let region: MemoryRegion
    /// The userfaultfd with which the memory is registered.
    let userfaultfd: Userfaultfd
    private let allCame = Atomic<Bool>(false)
    private let reason = Mutex<String?>(nil)

    init(_ region: MemoryRegion, _ userfaultfd: consuming Userfaultfd) {
        self.region = region
        self.userfaultfd = userfaultfd
    }

    /// Whether every page has arrived.
    var isComplete: Bool { allCame.load(ordering: .acquiring) }
    /// Why pages no longer arrive; nil while they do.
    var failure: String? { reason.withLock { $0 } }

    func complete() {
        allCame.store(true, ordering: .releasing)
    }

    /// Records why pages no longer arrive, and lets every thread that waits for one continue with zeros.
    ///
    /// - Parameter pages: the pages that no longer arrive.
    func fail(_ why: String, _ pages: PageRange) {
        reason.withLock { $0 = $0 ?? why }
        do throws(SystemError) {
            try userfaultfd.unregister(pages)
        } catch {
            // A thread that waits for a page would wait for ever.
            preconditionFailure("\(error)")
        }
    }
}

package import LinuxSystem

/// A place where a guest can arrive: this process's own memory, or that of another process.
package protocol Landing: Sendable {
    /// Makes a stopped workload for a guest whose devices have loaded nothing yet.
    ///
    /// Called on a thread that may block.
    ///
    /// - Parameters:
    ///   - description: the source's description of the workload, which is not trusted.
    ///   - onMemory: receives the guest's memory once: before `prepare` returns, or while the devices load.
    /// - Throws: why the guest cannot arrive here, in one line for a person.
    func prepare(
        _ description: GuestDescription,
        onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
    ) throws -> any Workload

    /// Whether the workloads that arrive here know what their pages should hold.
    var canVerify: Bool { get }

    /// Whether another workload can arrive after one that was loaded here but never started.
    var takesAnother: Bool { get }
}

extension Landing {
    /// True by default, for a landing that makes new memory in this process for each guest.
    package var takesAnother: Bool { true }

    /// True by default, for workloads whose program is part of this one.
    package var canVerify: Bool { true }
}

/// A guest's memory before its pages have arrived.
package struct WaitingMemory: ~Copyable, Sendable {
    /// The userfaultfd that reports the faults on the memory, and through which pages are placed.
    package let userfaultfd: Userfaultfd
    /// The memory's address ranges, registered with the userfaultfd, in the order of the description's regions.
    package let ranges: [PageRange]
    /// This process's own mappings of the same memory, into which pages can be received directly.
    ///
    /// Element n belongs to range n and is nil if that range has no such mapping. Empty if no range has one.
    package let aliases: [MemoryAlias?]
    /// The pages that have arrived, one bitmap per range.
    package let resident: [PageBitmap]
    /// Whether a fault raises SIGBUS on the faulting thread, which then fetches the page, instead of an event.
    package let resolvesInThread: Bool
    /// Whether the memory's process waits until events of the userfaultfd are read: it has forked, or has dropped, moved
    /// or unmapped memory.
    package let raisesEvents: Bool
    /// The page table that shows which pages are present; nil if it need not be read, or may not be.
    ///
    /// Huge pages of a process that raises events need it.
    package let pageTable: PageTable?
    /// Keeps an object alive for as long as somebody may read the memory; nil keeps it until this process ends.
    package let keep: (@Sendable (any AnyObject & Sendable) -> Void)?

    /// Makes a guest's memory that is ready to receive pages.
    ///
    /// `ranges`, `resident` and `aliases` are parallel: element n of each describes region n. `aliases` is either empty
    /// or as long as `ranges`.
    package init(
        userfaultfd: consuming Userfaultfd,
        ranges: [PageRange],
        resident: [PageBitmap],
        resolvesInThread: Bool = false,
        aliases: [MemoryAlias?] = [],
        raisesEvents: Bool = false,
        pageTable: PageTable? = nil,
        keep: (@Sendable (any AnyObject & Sendable) -> Void)? = nil
    ) {
        self.userfaultfd = userfaultfd
        self.ranges = ranges
        self.resident = resident
        self.aliases = aliases
        self.resolvesInThread = resolvesInThread
        self.raisesEvents = raisesEvents
        self.pageTable = pageTable
        self.keep = keep
    }

    /// Moves the userfaultfd out, for the code that serves the faults.
    package consuming func takeUserfaultfd() -> Userfaultfd {
        userfaultfd
    }
}

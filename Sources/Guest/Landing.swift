public import LinuxSystem

/// A place where a guest can arrive: this process's own memory, or that of a process that handed its userfaultfd over.
public protocol Landing: Sendable {
    /// Makes memory and a stopped workload for a guest. Its devices have loaded nothing yet.
    ///
    /// Called on a thread that may block.
    ///
    /// - Throws: why the guest cannot arrive here, in one line for a person.
    func prepare(_ description: GuestDescription) throws -> PreparedGuest
}

/// A guest whose memory waits for its pages.
public struct PreparedGuest: ~Copyable, Sendable {
    /// Where the faults on the guest's memory are told.
    public let userfaultfd: Userfaultfd
    /// The memory, registered, in the order of the description's regions.
    public let ranges: [PageRange]
    /// Where this process has mapped the memory too, to receive pages straight into it: one a range, or none at all.
    public let aliases: [MemoryAlias?]
    /// Which pages have arrived, one bitmap a region.
    public let resident: [PageBitmap]
    /// The guest itself.
    public let workload: any Workload
    /// Whether a fault raises SIGBUS on the thread that touched the page, which then fetches it, instead of an event.
    public let resolvesInThread: Bool

    /// Makes a prepared guest out of its parts.
    public init(
        userfaultfd: consuming Userfaultfd,
        ranges: [PageRange],
        resident: [PageBitmap],
        workload: any Workload,
        resolvesInThread: Bool = false,
        aliases: [MemoryAlias?] = []
    ) {
        self.userfaultfd = userfaultfd
        self.ranges = ranges
        self.resident = resident
        self.aliases = aliases
        self.workload = workload
        self.resolvesInThread = resolvesInThread
    }

    /// Gives the userfaultfd to whoever serves the faults.
    public consuming func takeUserfaultfd() -> Userfaultfd {
        userfaultfd
    }
}

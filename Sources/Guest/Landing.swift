public import LinuxSystem

/// A place where a guest can arrive: this process's own memory, or that of another process.
public protocol Landing: Sendable {
    /// Makes a stopped workload for a guest. Its devices have loaded nothing yet.
    ///
    /// Called on a thread that may block.
    ///
    /// - Parameter onMemory: called once with the guest's memory: before this returns, or while its devices load.
    /// - Throws: why the guest cannot arrive here, in one line for a person.
    func prepare(
        _ description: GuestDescription,
        onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
    ) throws -> any Workload

    /// Whether the workloads that arrive here know what their pages should hold.
    var canVerify: Bool { get }

    /// Whether another workload can arrive after one whose devices have loaded and that was not started.
    var takesAnother: Bool { get }
}

extension Landing {
    /// As memory of this process does.
    public var takesAnother: Bool { true }

    /// As workloads of this process do.
    public var canVerify: Bool { true }
}

/// A guest's memory that waits for its pages.
public struct WaitingMemory: ~Copyable, Sendable {
    /// Where the faults on the memory are told.
    public let userfaultfd: Userfaultfd
    /// The memory, registered, in the order of the description's regions.
    public let ranges: [PageRange]
    /// Where this process has mapped the memory too, to receive pages straight into it: one a range, or none at all.
    public let aliases: [MemoryAlias?]
    /// Which pages have arrived, one bitmap a region.
    public let resident: [PageBitmap]
    /// Whether a fault raises SIGBUS on the thread that touched the page, which then fetches it, instead of an event.
    public let resolvesInThread: Bool
    /// The process that drops pages of it and tells so by the userfaultfd (EVENT_REMOVE); nil where none does.
    public let dropper: Int32?

    /// Where it can be asked which pages are there; nil where that is not to be asked, or not of this process.
    public let pageTable: PageTable?
    /// Keeps an object for as long as somebody may read the memory; nil to keep it until this process ends.
    public let keep: (@Sendable (any AnyObject & Sendable) -> Void)?

    /// Makes a waiting memory out of its parts.
    public init(
        userfaultfd: consuming Userfaultfd,
        ranges: [PageRange],
        resident: [PageBitmap],
        resolvesInThread: Bool = false,
        aliases: [MemoryAlias?] = [],
        dropper: Int32? = nil,
        pageTable: PageTable? = nil,
        keep: (@Sendable (any AnyObject & Sendable) -> Void)? = nil
    ) {
        self.userfaultfd = userfaultfd
        self.ranges = ranges
        self.resident = resident
        self.aliases = aliases
        self.resolvesInThread = resolvesInThread
        self.dropper = dropper
        self.pageTable = pageTable
        self.keep = keep
    }

    /// Gives the userfaultfd to whoever serves the faults.
    public consuming func takeUserfaultfd() -> Userfaultfd {
        userfaultfd
    }
}

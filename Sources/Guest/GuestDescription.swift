public import LinuxSystem

/// What must be known to make a workload's counterpart on another host, before any of its state has arrived.
public struct GuestDescription: Hashable, Sendable {
    /// Which kind of workload it is; the destination must know it.
    public var kind: String
    /// What people call it, such as `random`.
    public var name: String
    /// The workload's own settings, in its own form; at most 64 KiB.
    public var configuration: [UInt8]
    /// The memory it works in.
    public var regions: [Region]

    /// Makes a description out of its parts.
    public init(kind: String, name: String, configuration: [UInt8], regions: [Region]) {
        self.kind = kind
        self.name = name
        self.configuration = configuration
        self.regions = regions
    }

    /// The shape of one memory region.
    public struct Region: Hashable, Sendable {
        /// Unique within the workload.
        public var name: String
        /// Bytes in a page.
        public var pageSize: Int
        /// Pages in the region.
        public var pageCount: Int

        /// Makes a shape out of its parts.
        public init(name: String, pageSize: Int = 4096, pageCount: Int) {
            self.name = name
            self.pageSize = pageSize
            self.pageCount = pageCount
        }
    }
}

/// One region of a workload's memory in this process.
public struct GuestRegion: Sendable {
    /// The memory itself.
    public let memory: MemoryRegion
    /// Which pages have arrived; nil where all were always here.
    public let resident: PageBitmap?

    /// Makes a region out of its parts.
    public init(memory: MemoryRegion, resident: PageBitmap? = nil) {
        self.memory = memory
        self.resident = resident
    }
}

package import LinuxSystem

/// What a destination needs to make a workload's counterpart, before any of the workload's state has arrived.
package struct GuestDescription: Hashable, Sendable {
    /// The kind of workload, such as `kvm`; a landing refuses a kind that it does not know.
    package var kind: String
    /// The workload's name for people, such as `random`.
    package var name: String
    /// The workload's settings, in a form that only its kind defines; at most 64 KiB.
    package var configuration: [UInt8]
    /// The shape of the workload's memory, in the order in which regions are numbered.
    package var regions: [Region]

    /// Makes a description; the bounds are checked where it is sent.
    package init(kind: String, name: String, configuration: [UInt8], regions: [Region]) {
        self.kind = kind
        self.name = name
        self.configuration = configuration
        self.regions = regions
    }

    /// The shape of one memory region.
    package struct Region: Hashable, Sendable {
        /// The region's name, unique within the workload.
        package var name: String
        /// Bytes in a page.
        package var pageSize: Int
        /// Pages in the region.
        package var pageCount: Int

        /// Makes a shape; pages have 4096 bytes unless told otherwise.
        package init(name: String, pageSize: Int = 4096, pageCount: Int) {
            self.name = name
            self.pageSize = pageSize
            self.pageCount = pageCount
        }
    }
}

/// One region of a workload's memory in this process.
package struct GuestRegion: Sendable {
    /// The memory itself.
    package let memory: MemoryRegion
    /// The pages that have arrived; nil if the memory was always in this process.
    package let resident: PageBitmap?

    /// Makes a region; without a bitmap, every page counts as present.
    package init(memory: MemoryRegion, resident: PageBitmap? = nil) {
        self.memory = memory
        self.resident = resident
    }
}

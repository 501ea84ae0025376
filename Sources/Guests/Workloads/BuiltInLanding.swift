package import Guest
package import LinuxSystem

/// A place in this process where built-in workloads can arrive.
package struct BuiltInLanding: Landing {
    private let hooks: Set<String>
    private let folders: [AllowedFolder]
    private let witness: Witness?
    private let resolvesInThread: Bool

    /// Makes a landing that by default allows no hook and no disk.
    ///
    /// - Parameters:
    ///   - hooks: the programs that an arriving workload's `hook` devices may run on this host, by path.
    ///   - folders: the folders that the files of its `disk` devices must lie in.
    ///   - witness: a file in which an arriving workload's threads record their operations; nil for none.
    ///   - resolvesInThread: whether a thread that touches an absent page fetches the page itself, on SIGBUS.
    package init(
        allowingHooks hooks: Set<String> = [],
        allowingDisksIn folders: [AllowedFolder] = [],
        witness: Witness? = nil,
        resolvesInThread: Bool = false
    ) {
        self.hooks = hooks
        self.folders = folders
        self.witness = witness
        self.resolvesInThread = resolvesInThread
    }

    /// Makes empty memory, registers it with a userfaultfd, and makes the stopped workload in it.
    ///
    /// - Throws: ``WorkloadError`` if the description is invalid, a device is not allowed here or the host has too
    ///   little memory; `SystemError` if the kernel refuses.
    package func prepare(
        _ description: GuestDescription,
        onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
    ) throws -> any Workload {
        let configuration = try WorkloadConfiguration(description)
        for case .hook(let path) in configuration.devices where !hooks.contains(path) {
            // Otherwise anybody who reaches the migration port could choose a program to run here.
            throw WorkloadError("the workload brings hook:\(path), which may not run here; allow it with --allow-hook")
        }
        for case .disk(let path) in configuration.devices where !folders.contains(where: { $0.covers(path) }) {
            throw WorkloadError(
                "the workload brings disk:\(path), which may not be used here; allow its folder with --allow-disk"
            )
        }
        try configuration.checkMemory()
        let userfaultfd = try resolvesInThread ? Userfaultfd(features: .sigbus) : Userfaultfd(wished: .threadID)
        let regions = try description.regions.map { shape in
            let memory = try MemoryRegion(name: shape.name, pageSize: shape.pageSize, pageCount: shape.pageCount)
            return GuestRegion(memory: memory, resident: try PageBitmap(pageCount: shape.pageCount))
        }
        for region in regions { try userfaultfd.register(region.memory.range) }
        let memories = regions.map { KeptObjects.WeakRegion($0.memory) }
        let hasHugePages = regions.contains { $0.memory.range.isHuge }
        let pageTable = hasHugePages ? try PageTable() : nil
        let workload = try BuiltInWorkload(
            configuration,
            regions: regions,
            origin: .arriving(disksIn: folders),
            witness: witness
        )
        onMemory(
            WaitingMemory(
                userfaultfd: userfaultfd,
                ranges: regions.map(\.memory.range),
                resident: regions.compactMap(\.resident),
                resolvesInThread: resolvesInThread,
                pageTable: pageTable,
                keep: { KeptObjects.keep($0, in: memories) }
            )
        )
        return workload
    }
}

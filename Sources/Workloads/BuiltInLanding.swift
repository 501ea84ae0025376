public import Guest
public import LinuxSystem

/// A place in this process where built-in workloads can arrive.
public struct BuiltInLanding: Landing {
    private let hooks: Set<String>
    private let folders: [AllowedFolder]
    private let witness: Witness?
    private let resolvesInThread: Bool

    /// Makes a landing.
    ///
    /// - Parameters:
    ///   - hooks: paths of programs that the `hook` devices of a workload that arrives may run on this host.
    ///   - folders: where the files of its `disk` devices must lie.
    ///   - witness: who is told of each operation of a workload that arrives; nil for nobody.
    ///   - resolvesInThread: whether a thread that touches an absent page fetches it itself.
    public init(
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

    /// Makes memory, registered and empty, and the stopped workload in it.
    ///
    /// - Throws: ``WorkloadError`` when the description is not understood or the host has too little memory;
    ///   `SystemError` when the kernel refuses.
    public func prepare(
        _ description: GuestDescription,
        onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
    ) throws -> any Workload {
        let configuration = try WorkloadConfiguration(description)
        for case .hook(let path) in configuration.devices where !hooks.contains(path) {
            // Whoever reaches the migration port would choose what runs here.
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

import LinuxSystem

/// The memory of a process that attaches, after it was checked against the hand-off message.
struct HandedMemory: ~Copyable {
    let userfaultfd: Userfaultfd
    let ranges: [PageRange]
    let aliases: [MemoryAlias?]
    /// The page table that shows which pages are present; nil if the kernel does not let this process read it.
    let pageTable: PageTable?
    /// The memory as it is read if the workload moves away again; nil for a process that can only receive one.
    let source: [SourceRegion]?

    /// Takes the memory that came with a hand-off message, after checks.
    ///
    /// - Parameters:
    ///   - handOff: the hand-off that the message carries, of a process that waits.
    ///   - message: the message with its descriptors.
    ///   - process: the process at the other end.
    /// - Throws: ``AttachmentError`` if the memory is refused, `HandedDescriptorError` if a descriptor is.
    init(
        _ handOff: HandOff,
        _ message: consuming StreamSocket.DescriptorMessage,
        of process: AttachedProcess
    ) throws {
        try HandedMemory.requireDescriptors(of: handOff, message)
        let ranges = handOff.ranges
        let aliases = try zip(handOff.ranges, handOff.files).map { range, file in
            try file.map { try message.alias(of: $0.descriptor, from: $0.offset, like: range) }
        }
        try HandedMemory.refuseSharedBytes(handOff, message)
        let source = handOff.version < 3 ? nil : try HandedMemory.sourceRegions(of: handOff, message, process)
        // With another offset, each page would appear at the address of another one.
        if handOff.version >= 3, let id = process.id {
            let mappings = try ProcessMappings(of: id)
            try HandedMemory.requireMappings(of: handOff, message, in: mappings, isUnwatched: false)
        }
        let userfaultfd = try message.takeUserfaultfd(serving: handOff.version < 3 ? [] : .events)
        for (index, range) in ranges.enumerated() {
            try userfaultfd.claim(range, name: "region \(index)")
            // Without minor faults the process could read a page while it is still being received into the file.
            if aliases[index] != nil { try userfaultfd.registerMinor(range) }
        }
        // If the page table cannot be read, the memory is taken unchecked, and the caller logs a warning.
        let pageTable = process.id.flatMap { try? PageTable(of: $0) }
        // Checked only now: since the registration, pages enter the memory only through the userfaultfd.
        if let pageTable { try HandedMemory.refusePresentPages(of: ranges, in: pageTable) }
        self.userfaultfd = userfaultfd
        self.ranges = ranges
        self.aliases = aliases
        self.pageTable = pageTable
        self.source = source
    }

    /// Takes the memory of a process that runs its workload, after checks.
    ///
    /// - Throws: ``AttachmentError`` if the memory is refused, or may not be read from here; `HandedDescriptorError` if a
    ///   descriptor is refused.
    static func ofRunning(
        _ handOff: HandOff,
        _ message: borrowing StreamSocket.DescriptorMessage,
        _ process: AttachedProcess
    ) throws -> [SourceRegion] {
        try requireDescriptors(of: handOff, message)
        guard let id = process.id else {
            throw AttachmentError(
                "the process is not visible to this agent; run the agent in a PID namespace that shows it"
            )
        }
        let regions = try sourceRegions(of: handOff, message, process)
        try refuseSharedBytes(handOff, message)
        try requireMappings(of: handOff, message, in: try ProcessMappings(of: id), isUnwatched: true)
        // Whether the memory may be read shows now, and not only once the workload has stopped.
        for case .ofProcess(let region) in regions {
            _ = try SourceRegion.ofProcess(region).withStart(ofPage: 0, byteCount: 8) { _ in }
        }
        return regions
    }

    /// Refuses regions that are not mapped as the hand-off says.
    private static func requireMappings(
        of handOff: HandOff,
        _ message: borrowing StreamSocket.DescriptorMessage,
        in mappings: ProcessMappings,
        isUnwatched: Bool
    ) throws {
        for (index, range) in handOff.ranges.enumerated() {
            let file = try handOff.files[index].map { (try message.identity(of: $0.descriptor), $0.offset) }
            try mappings.require(range, in: file, isUnwatched: isUnwatched, name: "region \(index)")
        }
    }

    private static func requireDescriptors(
        of handOff: HandOff,
        _ message: borrowing StreamSocket.DescriptorMessage
    ) throws(AttachmentError) {
        guard message.descriptorCount != handOff.descriptorCount else { return }
        let expected = handOff.descriptorCount == 1 ? "one" : "\(handOff.descriptorCount)"
        throw AttachmentError("the hand-off came with \(message.descriptorCount) descriptors instead of \(expected)")
    }

    /// The regions as they are read when the workload moves away.
    private static func sourceRegions(
        of handOff: HandOff,
        _ message: borrowing StreamSocket.DescriptorMessage,
        _ process: AttachedProcess
    ) throws -> [SourceRegion] {
        let drops = handOff.abilities.contains(.free)
        let memory = handOff.files.contains { $0 == nil } ? try process.memory() : nil
        var regions: [SourceRegion] = []
        for (index, (range, file)) in zip(handOff.ranges, handOff.files).enumerated() {
            if let file {
                regions.append(.ofFile(try message.region(of: file.descriptor, from: file.offset, like: range)))
            } else if let memory {
                let region = ProcessRegion(range, of: memory) { [weak process] pages in
                    if drops { process?.free(pages, region: index) }
                }
                regions.append(.ofProcess(region))
            }
        }
        return regions
    }

    consuming func takeUserfaultfd() -> Userfaultfd { userfaultfd }

    /// Refuses regions that map the same bytes of a file, since one page would then receive two regions' contents.
    private static func refuseSharedBytes(
        _ handOff: HandOff,
        _ message: borrowing StreamSocket.DescriptorMessage
    ) throws {
        var pieces: [(region: Int, file: StreamSocket.FileIdentity, bytes: Range<UInt64>)] = []
        for (region, place) in handOff.files.enumerated() {
            guard let place else { continue }
            let file = try message.identity(of: place.descriptor)
            let bytes = place.offset..<place.offset + handOff.ranges[region].byteCount
            if let other = pieces.first(where: { $0.file == file && $0.bytes.overlaps(bytes) }) {
                throw AttachmentError(
                    "regions \(other.region) and \(region) share bytes of one memory file, from byte "
                        + "\(max(other.bytes.lowerBound, bytes.lowerBound)) on; hand each byte over once"
                )
            }
            pieces.append((region, file, bytes))
        }
    }

    /// Refuses memory with a present page, since such a page raises no fault and would keep its content.
    private static func refusePresentPages(of ranges: [PageRange], in pageTable: PageTable) throws {
        for (index, range) in ranges.enumerated() {
            guard let page = try pageTable.firstPresent(in: range) else { continue }
            throw AttachmentError(
                "page \(page) of region \(index) is already present, and would keep its content; hand over memory that "
                    + "was never touched, or drop it first (MADV_DONTNEED)"
            )
        }
    }
}

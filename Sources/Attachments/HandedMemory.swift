import LinuxSystem

/// The memory of a process that attaches, after it was found to be what the hand-off says.
struct HandedMemory: ~Copyable {
    let userfaultfd: Userfaultfd
    let ranges: [PageRange]
    let aliases: [MemoryAlias?]
    /// Where it can be asked which pages are there; nil where the kernel does not let this process look.
    let pageTable: PageTable?

    /// Takes what came with a hand-off, and checks it.
    ///
    /// - Parameter process: the one at the other end; nil where it cannot be seen.
    /// - Throws: ``AttachmentError``, or `HandedDescriptorError`, with what is wrong.
    init(
        _ message: consuming StreamSocket.DescriptorMessage,
        of process: Int32?
    ) throws {
        let handOff = try HandOff(message.bytes)
        guard message.descriptorCount == handOff.descriptorCount else {
            let expected = handOff.descriptorCount == 1 ? "one" : "\(handOff.descriptorCount)"
            throw AttachmentError(
                "the hand-off came with \(message.descriptorCount) descriptors instead of \(expected)"
            )
        }
        let ranges = handOff.ranges
        let aliases = try zip(handOff.ranges, handOff.files).map { range, file in
            try file.map { try message.alias(of: $0.descriptor, from: $0.offset, like: range) }
        }
        try HandedMemory.refuseSharedBytes(handOff, message)
        let userfaultfd = try message.takeUserfaultfd()
        for (index, range) in ranges.enumerated() {
            try userfaultfd.claim(range, name: "region \(index)")
            // Without minor faults the process would see pages that are being received.
            if aliases[index] != nil { try userfaultfd.registerMinor(range) }
        }
        let pageTable = process.flatMap { try? PageTable(of: $0) }
        // From here on a page comes into the memory only by the userfaultfd.
        if let pageTable { try HandedMemory.refusePresentPages(of: ranges, in: pageTable) }
        self.userfaultfd = userfaultfd
        self.ranges = ranges
        self.aliases = aliases
        self.pageTable = pageTable
    }

    consuming func takeUserfaultfd() -> Userfaultfd { userfaultfd }

    /// A page that two regions show would hold what the first of them brings.
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

    /// A page that is there raises no fault, and keeps what it holds.
    private static func refusePresentPages(of ranges: [PageRange], in pageTable: PageTable) throws {
        for (index, range) in ranges.enumerated() {
            guard let page = try pageTable.firstPresent(in: range) else { continue }
            throw AttachmentError(
                "page \(page) of region \(index) is there already, and would keep what it holds; hand over memory that "
                    + "nobody has touched, or drop it first (MADV_DONTNEED)"
            )
        }
    }
}

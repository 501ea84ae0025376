import LinuxSystem

/// The memory file that a microVM's memory is copied to when it leaves. It takes no memory before.
final class SnapshotImage: Sendable {
    let file: MemoryFile
    let regions: [MemoryRegion]

    init(of configuration: MicroVMConfiguration) throws(SystemError) {
        let file = try MemoryFile(name: "pageferry-snapshot", byteCount: configuration.byteCount)
        var regions: [MemoryRegion] = []
        for (index, piece) in configuration.pieces.enumerated() {
            regions.append(
                try MemoryRegion(
                    name: "memory\(index)",
                    pageSize: configuration.pageSize,
                    pageCount: piece.count / configuration.pageSize,
                    of: file,
                    at: piece.lowerBound
                )
            )
        }
        self.file = file
        self.regions = regions
    }

    /// Takes all of its memory.
    func reserve() throws {
        if let available = ProcessFile.availableMemory, file.byteCount > available {
            throw MicroVMError(
                "a snapshot takes \(file.byteCount >> 20) MiB beside the microVM's memory, and this host has "
                    + "\(available >> 20) MiB available; free memory here"
            )
        }
        try file.reserve()
    }

    /// Gives all of its memory back. What cannot be given back is overwritten by the next snapshot.
    func discard() {
        for region in regions { try? region.discard(0..<region.pageCount) }
    }
}

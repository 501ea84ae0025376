import LinuxSystem

/// The memory file to which Firecracker copies a leaving microVM's memory.
///
/// The file occupies no memory before ``reserve()``.
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

    /// Allocates all of the file's memory.
    ///
    /// - Throws: ``MicroVMError`` if this host has too little available, `SystemError` if the kernel refuses.
    func reserve() throws {
        if let available = ProcessFile.availableMemory, file.byteCount > available {
            throw MicroVMError(
                "a snapshot needs \(file.byteCount >> 20) MiB beside the microVM's memory, and this host has "
                    + "\(available >> 20) MiB available; free memory here"
            )
        }
        try file.reserve()
    }

    /// Frees the file's memory.
    func discard() {
        // Memory that cannot be freed is overwritten by the next snapshot.
        for region in regions { try? region.discard(0..<region.pageCount) }
    }
}

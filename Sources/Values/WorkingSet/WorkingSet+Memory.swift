extension WorkingSet {
    /// The shape of a snapshot's memory file: all that a working set is bound to.
    package struct Memory: Hashable, Sendable, CustomStringConvertible {
        /// Bytes of a page: 4096, or 2097152.
        package let pageSize: UInt32
        /// Bytes of the file, whole pages.
        package let byteCount: UInt64

        /// Describes a memory file.
        ///
        /// - Throws: the page size or the file size that is out of bounds: the pages have 4096 or 2097152 bytes, and
        ///   the file has 1 to 4294967295 whole pages.
        package init(pageSize: UInt32, byteCount: UInt64) throws(WorkingSetError) {
            guard pageSize == 4096 || pageSize == 2 << 20 else {
                throw WorkingSetError("the page size is \(pageSize), not 4096 or 2097152")
            }
            let (pages, rest) = byteCount.quotientAndRemainder(dividingBy: UInt64(pageSize))
            guard rest == 0, (1...UInt64(UInt32.max)).contains(pages) else {
                throw WorkingSetError(
                    "the snapshot has \(byteCount) bytes, which are not 1 to \(UInt32.max) pages of \(pageSize)"
                )
            }
            self.pageSize = pageSize
            self.byteCount = byteCount
        }

        /// Pages in the file; at least 1.
        package var pageCount: UInt32 { UInt32(byteCount / UInt64(pageSize)) }

        /// The memory in words, for errors.
        package var description: String { "\(byteCount) bytes in pages of \(pageSize)" }
    }
}

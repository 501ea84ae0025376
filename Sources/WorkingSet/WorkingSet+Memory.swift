extension WorkingSet {
    /// The memory file of a snapshot, as far as a working set is bound to it.
    public struct Memory: Hashable, Sendable, CustomStringConvertible {
        /// Bytes of a page: 4096, or 2097152.
        public let pageSize: UInt32
        /// Bytes of the file, whole pages.
        public let byteCount: UInt64

        /// Describes a memory file.
        ///
        /// - Throws: that there are no such pages, or that the file is not 1 to 4294967295 of them.
        public init(pageSize: UInt32, byteCount: UInt64) throws(WorkingSetError) {
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

        /// Pages of the file; at least 1.
        public var pageCount: UInt32 { UInt32(byteCount / UInt64(pageSize)) }

        /// The memory in words, for errors.
        public var description: String { "\(byteCount) bytes in pages of \(pageSize)" }
    }
}

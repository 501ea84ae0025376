import Outside

/// One piece of the guest's memory.
package struct RegionShape: Hashable, Sendable {
    /// The region's name, 1 to 64 bytes, used once.
    package var name: String
    /// Where the guest sees the region; for a process, a virtual address.
    package var guestAddress: UInt64
    /// Bytes of a page: a power of two from 4096 to 1 GiB.
    package var pageSize: UInt32
    /// How many pages the region has, at least 1.
    package var pageCount: UInt64

    /// A shape; ``validate(_:atMost:)`` checks its bounds.
    package init(name: String, guestAddress: UInt64, pageSize: UInt32, pageCount: UInt64) {
        self.name = name
        self.guestAddress = guestAddress
        self.pageSize = pageSize
        self.pageCount = pageCount
    }

    /// Checks a guest's regions against every bound.
    ///
    /// There are as many regions as allowed with at most 2^46 bytes together. Each name is used once. Names, page sizes
    /// and page counts are inside their bounds, no region ends beyond 64 bits, and no two regions share a guest address.
    ///
    /// - Parameters:
    ///   - shapes: the regions.
    ///   - most: the largest number of regions.
    /// - Throws: the first fault found, with the name of the region or regions.
    package static func validate(
        _ shapes: [RegionShape],
        atMost most: Int = Wire.maxRegions
    ) throws(ProtocolError) {
        guard (1...most).contains(shapes.count) else {
            throw .outOfBounds(
                frame: .regions,
                field: "region count",
                found: UInt64(shapes.count),
                allowed: 1...UInt64(most)
            )
        }
        var names: Set<String> = []
        var total: UInt64 = 0
        for shape in shapes {
            total += try shape.validatedByteCount()
            guard total <= Wire.maxMemoryBytes else { throw .memoryTooLarge(region: shape.name) }
            guard names.insert(shape.name).inserted else { throw .duplicateName(frame: .regions, name: shape.name) }
        }
        let ordered = shapes.sorted { $0.guestAddress < $1.guestAddress }
        for (first, second) in zip(ordered, ordered.dropFirst())
        where second.guestAddress - first.guestAddress < first.pageCount * UInt64(first.pageSize) {
            throw .regionsOverlap(first.name, second.name)
        }
    }

    /// The region's size in bytes, at most 2^46, after a check of the region's own fields.
    private func validatedByteCount() throws(ProtocolError) -> UInt64 {
        try Text.validate(name, frame: .regions, field: "region name", allowed: 1...Wire.maxNameBytes)
        guard pageSize.nonzeroBitCount == 1, (Wire.minPageSize...Wire.maxPageSize).contains(pageSize) else {
            throw .pageSize(region: name, found: pageSize)
        }
        guard pageCount > 0 else {
            throw .outOfBounds(
                frame: .regions,
                field: "page count of region \"\(name)\"",
                found: 0,
                allowed: 1...(Wire.maxMemoryBytes / UInt64(pageSize))
            )
        }
        let byteCount = Untrusted(pageCount) * Untrusted(converting: pageSize)
        guard let size = byteCount.within(0...Wire.maxMemoryBytes) else { throw .memoryTooLarge(region: name) }
        guard (Untrusted(guestAddress) + byteCount).within(0...UInt64.max) != nil else {
            throw .regionOverflow(region: name, guestAddress: guestAddress)
        }
        return size
    }
}

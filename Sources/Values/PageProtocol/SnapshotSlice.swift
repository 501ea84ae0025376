/// One region of a guest as it lies in the file of its memory.
package struct SnapshotSlice: Hashable, Sendable {
    /// Where the slice begins in the file, in bytes: a multiple of 4096, at most 2^63 - 1.
    package var offset: UInt64
    /// Bytes of a page: a power of two from 4096 to 1 GiB.
    package var pageSize: UInt32
    /// How many pages the slice has, at least 1.
    package var pageCount: UInt64

    /// A slice; ``validate(_:)`` checks its bounds.
    package init(offset: UInt64, pageSize: UInt32, pageCount: UInt64) {
        self.offset = offset
        self.pageSize = pageSize
        self.pageCount = pageCount
    }

    /// Bytes from the file's beginning to the slice's end.
    ///
    /// The slice must be inside its bounds.
    package var end: UInt64 { offset + UInt64(pageSize) * pageCount }

    /// Checks the slices of a file, as the encoder and the decoder of SLICES do.
    ///
    /// There are 1 to 4096 slices, each inside its bounds, with at most 2^46 bytes together. No byte is in two slices.
    ///
    /// - Throws: the first fault found: `outOfBounds`, `sliceOffset`, `slicePageSize` or `slicesOverlap`.
    package static func validate(_ slices: [SnapshotSlice]) throws(ProtocolError) {
        try require(UInt64(slices.count), "slice count", 1...UInt64(Wire.maxSlices))
        var total: UInt64 = 0
        for (index, slice) in slices.enumerated() {
            try require(slice.offset, "offset of slice \(index)", 0...UInt64(Int64.max))
            guard slice.offset % UInt64(Wire.minPageSize) == 0 else {
                throw .sliceOffset(slice: index, found: slice.offset)
            }
            guard slice.pageSize.nonzeroBitCount == 1, (Wire.minPageSize...Wire.maxPageSize).contains(slice.pageSize)
            else { throw .slicePageSize(slice: index, found: slice.pageSize) }
            let bound = Wire.maxMemoryBytes / UInt64(slice.pageSize)
            try require(slice.pageCount, "page count of slice \(index)", 1...bound)
            total += UInt64(slice.pageSize) * slice.pageCount
            try require(total, "bytes of all slices up to slice \(index)", 0...Wire.maxMemoryBytes)
        }
        let ordered = slices.enumerated().sorted { $0.element.offset < $1.element.offset }
        for (first, second) in zip(ordered, ordered.dropFirst()) where second.element.offset < first.element.end {
            throw .slicesOverlap(first.offset, second.offset)
        }
    }

    private static func require(_ value: UInt64, _ field: String, _ allowed: ClosedRange<UInt64>) throws(ProtocolError)
    {
        guard allowed.contains(value) else {
            throw .outOfBounds(frame: .slices, field: field, found: value, allowed: allowed)
        }
    }
}

extension SnapshotSlice {
    static func write(_ slices: [SnapshotSlice], to writer: inout WireWriter) throws(ProtocolError) {
        try validate(slices)
        writer.append(UInt16(slices.count))
        for slice in slices {
            writer.append(slice.offset)
            writer.append(slice.pageSize)
            writer.append(slice.pageCount)
        }
    }

    static func readList(from reader: inout WireReader) throws(ProtocolError) -> [SnapshotSlice] {
        let count: UInt16 = try reader.read("slice count")
        try reader.require(UInt64(count), field: "slice count", in: 1...UInt64(Wire.maxSlices))
        var slices: [SnapshotSlice] = []
        slices.reserveCapacity(Int(count))
        for _ in 0..<count {
            let offset: UInt64 = try reader.read("offset")
            let pageSize: UInt32 = try reader.read("page size")
            slices.append(
                SnapshotSlice(offset: offset, pageSize: pageSize, pageCount: try reader.read("page count"))
            )
        }
        try validate(slices)
        return slices
    }
}

extension RegionTable {
    /// A table of a file's slices, which frames name by their index.
    ///
    /// - Throws: what ``SnapshotSlice/validate(_:)`` finds.
    package init(slices: [SnapshotSlice]) throws(ProtocolError) {
        try SnapshotSlice.validate(slices)
        try self.init(
            slices.enumerated().map { index, slice in
                RegionShape(
                    name: "slice \(index)",
                    guestAddress: slice.offset,
                    pageSize: slice.pageSize,
                    pageCount: slice.pageCount
                )
            },
            atMost: Wire.maxSlices
        )
    }
}

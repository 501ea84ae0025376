/// The announced regions, prepared for checking runs: a sound run costs no allocation and no lock.
package struct RegionTable: Sendable {
    @usableFromInline
    struct Entry: Sendable {
        @usableFromInline let pageCount: UInt64
        @usableFromInline let pageSize: UInt32
        @usableFromInline let maxRunCount: UInt32

        @usableFromInline
        init(_ shape: RegionShape) {
            pageCount = shape.pageCount
            pageSize = shape.pageSize
            maxRunCount = PageRun.maxCount(pageSize: shape.pageSize)
        }
    }

    /// The regions, in the order of the announcement.
    package let shapes: [RegionShape]

    @usableFromInline let entries: [Entry]

    /// A table of regions that may come from anywhere.
    ///
    /// - Parameters:
    ///   - shapes: the regions.
    ///   - most: the largest number of regions.
    /// - Throws: what ``RegionShape/validate(_:atMost:)`` finds.
    package init(_ shapes: [RegionShape], atMost most: Int = Wire.maxRegions) throws(ProtocolError) {
        try RegionShape.validate(shapes, atMost: most)
        self.shapes = shapes
        entries = shapes.map { Entry($0) }
    }

    /// How many regions there are.
    @inlinable
    package var count: Int { entries.count }

    /// Bytes of a page of the region, which must exist.
    @inlinable
    package func pageSize(ofRegion region: Int) -> UInt32 { entries[region].pageSize }

    /// Pages of the region, which must exist.
    @inlinable
    package func pageCount(ofRegion region: Int) -> UInt64 { entries[region].pageCount }

    /// Where a run lies in its region.
    ///
    /// - Throws: `unknownRegion`, or `runOutOfRange` for a run that is empty or not inside its region.
    @inlinable
    package func extent(of run: PageRun) throws(ProtocolError) -> RunExtent {
        let region = Int(run.region)
        guard region < entries.count else { throw refusal(of: run) }
        let entry = entries[region]
        guard run.count > 0, run.first < entry.pageCount, UInt64(run.count) <= entry.pageCount &- run.first else {
            throw refusal(of: run)
        }
        // No product overflows: a region holds at most 2^46 bytes, and the run lies inside its region.
        return RunExtent(
            offset: run.first &* UInt64(entry.pageSize),
            byteCount: UInt64(run.count) &* UInt64(entry.pageSize)
        )
    }

    /// Where a frame's run lies in its region, after a check of the whole frame.
    ///
    /// Every kind but ZEROES names at most ``PageRun/maxCount(pageSize:)`` pages. Exactly the bytes of the run follow
    /// PAGES. Fewer bytes follow if the pages are compressed, and they are at most ``Wire/maxCompressedRunBytes``
    /// together. The extent of a probe is empty.
    ///
    /// - Throws: `unknownRegion`, `runOutOfRange`, `runTooLong`, `pagesLength`, `outOfBounds`.
    @inlinable
    package func extent(of frame: LaneFrame) throws(ProtocolError) -> RunExtent {
        switch frame.kind {
        case .probe, .probeReply:
            return RunExtent(offset: 0, byteCount: 0)
        case .zeroes:
            return try extent(of: frame.run)
        case .pageRequest, .pages, .aheadRequest, .sent:
            let extent = try extent(of: frame.run)
            guard frame.run.count <= entries[Int(frame.run.region)].maxRunCount,
                frame.kind != .pages || extent.byteCount == UInt64(frame.bodyByteCount)
            else { throw refusal(of: frame, extent) }
            return extent
        case .pagesLZ4, .pagesZstd:
            let extent = try extent(of: frame.run)
            guard frame.run.count <= entries[Int(frame.run.region)].maxRunCount,
                extent.byteCount <= UInt64(Wire.maxCompressedRunBytes),
                UInt64(frame.bodyByteCount) < extent.byteCount
            else { throw refusal(of: frame, extent) }
            return extent
        }
    }

    /// The error of a run that is refused, kept out of the path of sound runs.
    @usableFromInline
    @inline(never)
    func refusal(of run: PageRun) -> ProtocolError {
        guard run.region < entries.count else { return .unknownRegion(run: run, regionCount: entries.count) }
        return .runOutOfRange(run: run, pageCount: entries[Int(run.region)].pageCount)
    }

    /// The error of a frame that is refused although its run lies in its region.
    @usableFromInline
    @inline(never)
    func refusal(of frame: LaneFrame, _ extent: RunExtent) -> ProtocolError {
        let maxCount = entries[Int(frame.run.region)].maxRunCount
        guard frame.run.count <= maxCount else {
            return .runTooLong(frame: frame.kind.asFrameKind, run: frame.run, maxCount: maxCount)
        }
        guard frame.kind.codec != nil else {
            return .pagesLength(run: frame.run, found: frame.bodyByteCount, expected: extent.byteCount)
        }
        let (kind, most) = (frame.kind.asFrameKind, UInt64(Wire.maxCompressedRunBytes))
        guard extent.byteCount <= most else {
            return .outOfBounds(frame: kind, field: "size of the pages", found: extent.byteCount, allowed: 1...most)
        }
        return .outOfBounds(
            frame: kind,
            field: "compressed length",
            found: UInt64(frame.bodyByteCount),
            allowed: 1...extent.byteCount - 1
        )
    }
}

/// Where a run lies in its region.
package struct RunExtent: Hashable, Sendable {
    /// Bytes from the region's start to the run's.
    package let offset: UInt64
    /// Bytes of the run.
    package let byteCount: UInt64

    @inlinable
    init(offset: UInt64, byteCount: UInt64) {
        self.offset = offset
        self.byteCount = byteCount
    }
}

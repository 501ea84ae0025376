/// The announced regions, prepared for judging runs: no allocation and no lock where a run is sound.
public struct RegionTable: Sendable {
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
    public let shapes: [RegionShape]

    @usableFromInline let entries: [Entry]

    /// A table of regions that may come from anywhere.
    ///
    /// - Throws: what ``RegionShape/validate(_:)`` finds.
    public init(_ shapes: [RegionShape]) throws(ProtocolError) {
        try RegionShape.validate(shapes)
        self.shapes = shapes
        entries = shapes.map { Entry($0) }
    }

    /// How many regions there are.
    @inlinable
    public var count: Int { entries.count }

    /// Bytes of a page of the region, which exists.
    @inlinable
    public func pageSize(ofRegion region: Int) -> UInt32 { entries[region].pageSize }

    /// Pages of the region, which exists.
    @inlinable
    public func pageCount(ofRegion region: Int) -> UInt64 { entries[region].pageCount }

    /// Where a run lies in its region.
    ///
    /// - Throws: `unknownRegion`, or `runOutOfRange` for a run that is empty or not inside its region.
    @inlinable
    public func extent(of run: PageRun) throws(ProtocolError) -> RunExtent {
        let region = Int(run.region)
        guard region < entries.count else { throw refusal(of: run) }
        let entry = entries[region]
        guard run.count > 0, run.first < entry.pageCount, UInt64(run.count) <= entry.pageCount &- run.first else {
            throw refusal(of: run)
        }
        // Regions hold at most 2^46 bytes, so that no product of a page index in one overflows.
        return RunExtent(
            offset: run.first &* UInt64(entry.pageSize),
            byteCount: UInt64(run.count) &* UInt64(entry.pageSize)
        )
    }

    /// Where a frame's run lies in its region, once the frame is known to be sound altogether.
    ///
    /// PAGE_REQUEST and PAGES name at most ``PageRun/maxCount(pageSize:)`` pages, and after PAGES follow exactly its
    /// pages. Of a probe the extent is empty.
    ///
    /// - Throws: `unknownRegion`, `runOutOfRange`, `runTooLong`, `pagesLength`.
    @inlinable
    public func extent(of frame: LaneFrame) throws(ProtocolError) -> RunExtent {
        switch frame.kind {
        case .probe, .probeReply:
            return RunExtent(offset: 0, byteCount: 0)
        case .zeroes:
            return try extent(of: frame.run)
        case .pageRequest, .pages:
            let extent = try extent(of: frame.run)
            guard frame.run.count <= entries[Int(frame.run.region)].maxRunCount,
                frame.kind == .pageRequest || extent.byteCount == UInt64(frame.bodyByteCount)
            else { throw refusal(of: frame, extent) }
            return extent
        }
    }

    /// What is wrong with a run that is known to be refused; out of the way of the good path.
    @usableFromInline
    @inline(never)
    func refusal(of run: PageRun) -> ProtocolError {
        guard run.region < entries.count else { return .unknownRegion(run: run, regionCount: entries.count) }
        return .runOutOfRange(run: run, pageCount: entries[Int(run.region)].pageCount)
    }

    /// What is wrong with a frame whose run lies in its region and which is known to be refused.
    @usableFromInline
    @inline(never)
    func refusal(of frame: LaneFrame, _ extent: RunExtent) -> ProtocolError {
        let maxCount = entries[Int(frame.run.region)].maxRunCount
        guard frame.run.count <= maxCount else {
            let kind: FrameKind = frame.kind == .pages ? .pages : .pageRequest
            return .runTooLong(frame: kind, run: frame.run, maxCount: maxCount)
        }
        return .pagesLength(run: frame.run, found: frame.bodyByteCount, expected: extent.byteCount)
    }
}

/// Where a run lies in its region.
public struct RunExtent: Hashable, Sendable {
    /// Bytes from the region's start to the run's.
    public let offset: UInt64
    /// Bytes of the run.
    public let byteCount: UInt64

    @inlinable
    init(offset: UInt64, byteCount: UInt64) {
        self.offset = offset
        self.byteCount = byteCount
    }
}

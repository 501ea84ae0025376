/// Contiguous pages of one region, as lane frames name them.
public struct PageRun: Hashable, Sendable {
    /// The region's index in the announcement.
    public var region: UInt32
    /// How many pages.
    public var count: UInt32
    /// The first page's index in the region.
    public var first: UInt64

    /// A run; ``RegionTable`` checks whether it lies in its region.
    @inlinable
    public init(region: UInt32, count: UInt32, first: UInt64) {
        self.region = region
        self.count = count
        self.first = first
    }

    /// The run of a probe: all zeros.
    @inlinable
    public static var zero: PageRun { PageRun(region: 0, count: 0, first: 0) }

    /// Most pages that one PAGE_REQUEST or PAGES may name: as many as fill 1 MiB, and at least one.
    ///
    /// - Parameter pageSize: bytes of a page, not zero.
    @inlinable
    public static func maxCount(pageSize: UInt32) -> UInt32 {
        max(1, Wire.maxRunBytes / pageSize)
    }
}

extension PageRun: CustomStringConvertible {
    /// The run in words, for errors.
    public var description: String {
        "run of \(count) pages from page \(first) of region \(region)"
    }
}

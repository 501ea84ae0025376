/// Contiguous pages of one region, as lane frames name them.
package struct PageRun: Hashable, Sendable {
    /// The region's index in the announcement.
    package var region: UInt32
    /// How many pages.
    package var count: UInt32
    /// The first page's index in the region.
    package var first: UInt64

    /// A run; ``RegionTable`` checks whether it lies in its region.
    @inlinable
    package init(region: UInt32, count: UInt32, first: UInt64) {
        self.region = region
        self.count = count
        self.first = first
    }

    /// The run of a probe: all zeros.
    @inlinable
    package static var zero: PageRun { PageRun(region: 0, count: 0, first: 0) }

    /// Most pages that one PAGE_REQUEST or PAGES may name: as many as fill 1 MiB, and at least one.
    ///
    /// - Parameter pageSize: bytes of a page, not zero.
    @inlinable
    package static func maxCount(pageSize: UInt32) -> UInt32 {
        max(1, Wire.maxRunBytes / pageSize)
    }
}

extension PageRun: CustomStringConvertible {
    /// The run in words, for errors.
    package var description: String {
        "run of \(count) pages from page \(first) of region \(region)"
    }
}

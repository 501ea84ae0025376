import Synchronization

/// Counts of pages by the cells of a ``LiveMap``, which threads that move pages write without locks.
///
/// Each count is one relaxed addition for a run of pages in one cell.
package final class PageGrid: Sendable {
    /// A kind of page that is counted when it moves.
    package enum Origin: Int, CaseIterable, Sendable {
        case demand, prefetched, pushed, zero
    }

    /// The number of cells that a grid has at most, beside one for each region.
    package static let mostCells = 2048

    /// `@unchecked Sendable`: the memory never moves, and every access is atomic.
    private final class Counts: @unchecked Sendable {
        let base: UnsafeMutablePointer<Atomic<UInt32>>
        let count: Int

        init(_ count: Int) {
            self.count = count
            base = .allocate(capacity: count)
            for index in 0..<count { (base + index).initialize(to: Atomic(0)) }
        }

        deinit {
            base.deinitialize(count: count)
            base.deallocate()
        }
    }

    private let grid: CellGrid
    private let counts: Counts

    /// Makes a grid for regions of memory.
    ///
    /// - Parameter regions: the name, the number of pages, and the size of a page of each region.
    package init(_ regions: [(name: String, pageCount: Int, pageSize: Int)]) {
        grid = CellGrid(regions)
        counts = Counts(grid.cells * Origin.allCases.count)
    }

    /// Counts pages of a region that have moved.
    @inline(__always)
    package func note(_ pages: Range<Int>, region: Int, as origin: Origin) {
        let (firstCell, shift) = (grid.regions[region].firstCell, grid.shift)
        var page = pages.lowerBound
        while page < pages.upperBound {
            let cell = page >> shift
            let end = min(pages.upperBound, (cell + 1) << shift)
            let index = (firstCell + cell) * Origin.allCases.count + origin.rawValue
            counts.base[index].add(UInt32(truncatingIfNeeded: end - page), ordering: .relaxed)
            page = end
        }
    }

    /// The map of the pages now.
    ///
    /// - Parameters:
    ///   - present: the number of pages of a run that have arrived or were sent.
    ///   - asked: the number of pages of a run that are requested and have not arrived.
    package func map(
        present: (_ pages: Range<Int>, _ region: Int) -> Int,
        asked: (_ pages: Range<Int>, _ region: Int) -> Int
    ) -> LiveMap {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(counts.count / Origin.allCases.count * LiveMap.Kind.allCases.count)
        for (number, region) in grid.regions.enumerated() {
            for cell in 0..<region.cells {
                let pages = grid.pages(ofCell: cell, in: region)
                let here = present(pages, number)
                let wanted = here == pages.count ? 0 : min(pages.count - here, asked(pages, number))
                func share(_ count: Int) -> UInt8 { PageGrid.share(count, of: pages.count) }
                bytes.append(share(pages.count - here - wanted))
                bytes.append(share(wanted))
                let index = (region.firstCell + cell) * Origin.allCases.count
                // Pages that were sent again count twice, so the counts may exceed the cell.
                var room = here
                for origin in Origin.allCases {
                    let count = min(room, Int(counts.base[index + origin.rawValue].load(ordering: .relaxed)))
                    room -= count
                    bytes.append(share(count))
                }
            }
        }
        return LiveMap(pagesPerCell: 1 << grid.shift, regions: grid.regions, counts: bytes)
    }

    /// The share of a cell in 255ths: 0 only for no page, and 255 only for all of them.
    private static func share(_ count: Int, of total: Int) -> UInt8 {
        guard count > 0 else { return 0 }
        return count >= total ? 255 : UInt8(clamping: max(1, min(254, count * 255 / total)))
    }
}

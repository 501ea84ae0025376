import Synchronization

/// When the memory of a workload arrived, by its place: sampled, so that no page costs anything.
package final class ArrivalTimes: Sendable {
    private let grid: CellGrid
    /// For each cell the time of the first sample with half of its pages; nil before.
    private let times: Mutex<[UInt64?]>

    /// Makes times of memory of which nothing has arrived.
    ///
    /// - Parameter regions: the name, the number of pages, and the size of a page of each region.
    package init(_ regions: [(name: String, pageCount: Int, pageSize: Int)]) {
        grid = CellGrid(regions)
        times = Mutex([UInt64?](repeating: nil, count: grid.cells))
    }

    /// Notes the cells of which half of the pages have arrived since the last sample.
    ///
    /// - Parameters:
    ///   - milliseconds: the time of this sample.
    ///   - present: the number of pages of a run that have arrived; called only for cells without a time.
    package func sample(at milliseconds: UInt64, present: (_ pages: Range<Int>, _ region: Int) -> Int) {
        times.withLock { times in
            for (number, region) in grid.regions.enumerated() {
                for cell in 0..<region.cells where times[region.firstCell + cell] == nil {
                    let pages = grid.pages(ofCell: cell, in: region)
                    guard present(pages, number) * 2 >= pages.count else { continue }
                    times[region.firstCell + cell] = milliseconds
                }
            }
        }
    }

    /// The times so far.
    package var arrivals: Report.Arrivals {
        Report.Arrivals(pagesPerCell: 1 << grid.shift, regions: grid.regions, at: times.withLock(\.self))
    }
}

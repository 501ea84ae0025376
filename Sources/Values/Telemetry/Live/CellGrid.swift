/// Memory in cells, each of which stands for the same number of pages; every region begins with a cell of its own.
struct CellGrid: Sendable {
    /// The binary logarithm of the pages in a cell.
    let shift: Int
    let regions: [LiveMap.Region]

    /// The number of cells of all regions.
    var cells: Int { regions.reduce(0) { $0 + $1.cells } }

    /// Divides regions into at most ``PageGrid/mostCells`` cells, beside one for each region.
    ///
    /// - Parameter regions: the name, the number of pages, and the size of a page of each region.
    init(_ regions: [(name: String, pageCount: Int, pageSize: Int)]) {
        let total = regions.reduce(0) { $0 + $1.pageCount }
        var shift = 0
        while total >> shift > PageGrid.mostCells { shift += 1 }
        self.shift = shift
        var next = 0
        self.regions = regions.map { region in
            let cells = (region.pageCount + (1 << shift) - 1) >> shift
            defer { next += cells }
            return LiveMap.Region(
                firstCell: next,
                cells: cells,
                name: region.name,
                pages: region.pageCount,
                pageSize: region.pageSize
            )
        }
    }

    /// The pages of a cell of a region, by the cell's index in the region.
    @inline(__always)
    func pages(ofCell cell: Int, in region: LiveMap.Region) -> Range<Int> {
        cell << shift..<min(region.pages, (cell + 1) << shift)
    }
}

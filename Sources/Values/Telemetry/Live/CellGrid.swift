/// Memory in cells, each of which stands for the same number of pages; every region begins with a cell of its own.
struct CellGrid: Sendable {
    struct Region: Sendable {
        let firstCell: Int
        let pageCount: Int
        let name: String
        let cells: Int
    }

    /// The binary logarithm of the pages in a cell.
    let shift: Int
    let regions: [Region]

    /// The number of cells of all regions.
    var cells: Int { regions.reduce(0) { $0 + $1.cells } }

    /// Divides regions into at most ``PageGrid/mostCells`` cells, beside one for each region.
    ///
    /// - Parameter regions: the name and the number of pages of each region.
    init(_ regions: [(name: String, pageCount: Int)]) {
        let total = regions.reduce(0) { $0 + $1.pageCount }
        var shift = 0
        while total >> shift > PageGrid.mostCells { shift += 1 }
        self.shift = shift
        var next = 0
        self.regions = regions.map { region in
            let cells = (region.pageCount + (1 << shift) - 1) >> shift
            defer { next += cells }
            return Region(firstCell: next, pageCount: region.pageCount, name: region.name, cells: cells)
        }
    }

    /// The pages of a cell of a region, by the cell's index in the region.
    @inline(__always)
    func pages(ofCell cell: Int, in region: Region) -> Range<Int> {
        cell << shift..<min(region.pageCount, (cell + 1) << shift)
    }

    /// The regions as they are shown.
    var shown: [LiveMap.Region] {
        regions.map { LiveMap.Region(firstCell: $0.firstCell, cells: $0.cells, name: $0.name) }
    }
}

import Foundation

/// Where in the memory the pages of each kind lie: a grid of cells, each of which stands for the same number of pages.
package struct LiveMap: Encodable, Hashable, Sendable {
    /// The kinds of pages that a cell counts, in the order of its bytes.
    package enum Kind: Int, CaseIterable, Sendable {
        case missing, asked, demand, prefetched, pushed, zero
    }

    /// A region of the memory, which begins with a cell of its own.
    package struct Region: Codable, Hashable, Sendable {
        package var firstCell: Int
        package var cells: Int
        package var name: String
        /// The pages of the region, of which the last cell may have fewer than others.
        package var pages: Int
        /// The size of each of these pages, in bytes.
        package var pageSize: Int

        enum CodingKeys: String, CodingKey {
            case cells, name, pages
            case firstCell = "first_cell"
            case pageSize = "page_size"
        }

        package init(firstCell: Int, cells: Int, name: String, pages: Int, pageSize: Int) {
            (self.firstCell, self.cells, self.name) = (firstCell, cells, name)
            (self.pages, self.pageSize) = (pages, pageSize)
        }
    }

    /// The pages of each cell, except that the last cell of a region may have fewer.
    package let pagesPerCell: Int
    /// The regions, in their order.
    package let regions: [Region]
    /// Six bytes for each cell: how many 255ths of the cell's pages are of each ``Kind``.
    package let counts: [UInt8]

    enum CodingKeys: String, CodingKey {
        case cells, regions, counts, from
        case pagesPerCell = "pages_per_cell"
    }

    /// Writes the whole map.
    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(counts.count / Kind.allCases.count, forKey: .cells)
        try container.encode(pagesPerCell, forKey: .pagesPerCell)
        try container.encode(regions, forKey: .regions)
        try container.encode(Data(counts).base64EncodedString(), forKey: .counts)
    }

    /// The cells that differ from an earlier map of the same grid, and their bytes; nil if the grid is another one.
    package func changes(since earlier: LiveMap) -> Changes? {
        guard earlier.pagesPerCell == pagesPerCell, earlier.regions == regions, earlier.counts.count == counts.count
        else { return nil }
        let width = Kind.allCases.count
        var changes = Changes()
        for cell in 0..<counts.count / width {
            let bytes = counts[cell * width..<(cell + 1) * width]
            guard bytes != earlier.counts[cell * width..<(cell + 1) * width] else { continue }
            changes.from.append(cell)
            changes.counts.append(contentsOf: bytes)
        }
        return changes
    }

    /// The cells of a map that have changed.
    package struct Changes: Encodable, Hashable, Sendable {
        package var from: [Int] = []
        package var counts: [UInt8] = []

        /// Writes the cells and their bytes.
        package func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(from, forKey: .from)
            try container.encode(Data(counts).base64EncodedString(), forKey: .counts)
        }
    }
}

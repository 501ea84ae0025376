/// Assembles the map of the pages that a destination has, from the parts in its RECEIVED messages.
package struct ReceivedMap: Sendable {
    private let pageCounts: [Int]
    private var regions: [[UInt8]]

    /// Makes an empty map.
    ///
    /// - Parameter pageCounts: the number of pages of each region.
    package init(pageCounts: [Int]) {
        self.pageCounts = pageCounts
        regions = pageCounts.map { _ in [] }
    }

    /// The complete map, one bit for each page of each region; nil while parts are missing.
    package var complete: [[UInt8]]? {
        zip(regions, pageCounts).allSatisfy { $0.count == ($1 + 7) / 8 } ? regions : nil
    }

    /// Adds the next part.
    ///
    /// - Parameter part: the content of a RECEIVED message.
    /// - Returns: false if the part does not follow the part before or exceeds the region.
    package mutating func add(_ part: ReceivedPages) -> Bool {
        guard part.region < regions.count, part.first == regions[Int(part.region)].count * 8 else { return false }
        let region = Int(part.region)
        let missing = (pageCounts[region] + 7) / 8 - regions[region].count
        guard part.bits.count <= missing else { return false }
        let unused = part.bits.count == missing ? (8 - pageCounts[region] & 7) & 7 : 0
        if unused > 0, let last = part.bits.last, last >> UInt8(8 - unused) != 0 { return false }
        regions[region] += part.bits
        return true
    }

    /// The map of a destination that has every page, or needs none any more.
    ///
    /// - Parameter pageCounts: the number of pages of each region.
    /// - Returns: one bit for each page of each region.
    package static func everything(of pageCounts: [Int]) -> [[UInt8]] {
        pageCounts.map { count in
            var bits = [UInt8](repeating: 0xff, count: (count + 7) / 8)
            if count & 7 != 0 { bits[bits.count - 1] = 1 << UInt8(count & 7) - 1 }
            return bits
        }
    }

    /// Cuts a map into the contents of RECEIVED messages.
    ///
    /// - Parameter regions: one bit for each page of each region.
    package static func parts(of regions: [[UInt8]]) -> [ReceivedPages] {
        regions.enumerated().flatMap { region, bits in
            stride(from: 0, to: bits.count, by: Wire.maxReceivedBytes).map { start in
                ReceivedPages(
                    region: UInt32(region),
                    first: UInt64(start * 8),
                    bits: Array(bits[start..<min(bits.count, start + Wire.maxReceivedBytes)])
                )
            }
        }
    }
}

import PageProtocol

/// Puts together, as it arrives, what a destination has of a guest's pages.
struct ReceivedMap: Sendable {
    private let pageCounts: [Int]
    private var regions: [[UInt8]]

    /// An empty map of regions with these numbers of pages.
    init(pageCounts: [Int]) {
        self.pageCounts = pageCounts
        regions = pageCounts.map { _ in [] }
    }

    /// A bit a page for each region, once all have come.
    var complete: [[UInt8]]? {
        zip(regions, pageCounts).allSatisfy { $0.count == ($1 + 7) / 8 } ? regions : nil
    }

    /// Takes the next part.
    ///
    /// - Returns: false if it does not follow the part before, or says more than there is.
    mutating func add(_ part: ReceivedPages) -> Bool {
        guard part.region < regions.count, part.first == regions[Int(part.region)].count * 8 else { return false }
        let region = Int(part.region)
        let missing = (pageCounts[region] + 7) / 8 - regions[region].count
        guard part.bits.count <= missing else { return false }
        let unused = part.bits.count == missing ? (8 - pageCounts[region] & 7) & 7 : 0
        if unused > 0, let last = part.bits.last, last >> UInt8(8 - unused) != 0 { return false }
        regions[region] += part.bits
        return true
    }

    /// The map of a destination that has every page, or needs none any more: a bit a page for each region.
    static func everything(of pageCounts: [Int]) -> [[UInt8]] {
        pageCounts.map { count in
            var bits = [UInt8](repeating: 0xff, count: (count + 7) / 8)
            if count & 7 != 0 { bits[bits.count - 1] = 1 << UInt8(count & 7) - 1 }
            return bits
        }
    }

    /// The frames' contents that carry what is said by a bit a page for each region.
    static func parts(of regions: [[UInt8]]) -> [ReceivedPages] {
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

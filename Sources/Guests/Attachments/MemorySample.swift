import LinuxSystem

/// Some pages of a stopped workload's memory, by which a workload that still runs is noticed.
struct MemorySample {
    /// A page of a region.
    struct Place: Hashable {
        let region: Int
        let page: Int
    }

    /// The most pages that are read, so that the check takes a small part of a millisecond.
    private static let pageLimit = 256
    /// Bytes that are read of a page.
    private static let pageBytes = 4096

    private let checksums: [Place: UInt64]

    /// Reads pages that are spread evenly over the memory, and the last page of each region.
    ///
    /// - Throws: `SystemError` if a page cannot be read.
    init(of regions: [SourceRegion]) throws(SystemError) {
        let total = regions.reduce(0) { $0 + $1.pageCount }
        let stride = max(1, (total + MemorySample.pageLimit - 1) / MemorySample.pageLimit)
        var checksums: [Place: UInt64] = [:]
        for (index, region) in regions.enumerated() {
            for page in [region.pageCount - 1] + Array(Swift.stride(from: 0, to: region.pageCount, by: stride)) {
                let place = Place(region: index, page: page)
                checksums[place] = try MemorySample.checksum(of: place, in: regions)
            }
        }
        self.checksums = checksums
    }

    /// Reads the pages again.
    ///
    /// - Returns: a page that has changed; nil if none has.
    /// - Throws: `SystemError` if a page can no longer be read.
    func firstChange(in regions: [SourceRegion]) throws(SystemError) -> Place? {
        for (place, checksum) in checksums {
            guard try MemorySample.checksum(of: place, in: regions) == checksum else { return place }
        }
        return nil
    }

    private static func checksum(of place: Place, in regions: [SourceRegion]) throws(SystemError) -> UInt64 {
        try regions[place.region].withStart(ofPage: place.page, byteCount: pageBytes) { bytes in
            // FNV-1a over words: any change of one word changes the result.
            bytes.bindMemory(to: UInt64.self).reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ $1) &* 0x100_0000_01b3 }
        }
    }
}

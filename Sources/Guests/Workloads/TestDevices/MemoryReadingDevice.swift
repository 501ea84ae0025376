package import Guest
import LinuxSystem

/// A device that reads guest memory while it loads, as a network card walks its queues.
///
/// The pages must arrive by fault before the workload runs, and must be the right ones.
package final class MemoryReadingDevice: Device {
    /// Pages that are read in each region, spread evenly over the region.
    package static let pagesPerRegion = 16

    /// The device's name.
    package let name: String
    private let regions: [GuestRegion]

    package init(name: String = "reads-memory", regions: [GuestRegion]) {
        self.name = name
        self.regions = regions
    }

    /// Returns a digest of each page that the device reads.
    package func save() -> [UInt8] {
        var writer = StateWriter()
        forEachPage { writer.append(digest(of: $0, seed: 0)) }
        return writer.bytes
    }

    /// Reads the same pages, and compares them with the saved digests.
    ///
    /// - Throws: `DeviceError` that names the first page that differs.
    package func load(_ state: [UInt8]) throws {
        var reader = StateReader(state, of: name)
        var place = 0
        try forEachPage { page in
            let expected: UInt64 = try reader.nextBits()
            guard digest(of: page, seed: 0) == expected else {
                throw DeviceError(
                    device: name,
                    reason: "page \(place) of those that it reads differs from the saved one"
                )
            }
            place += 1
        }
        try reader.finish()
    }

    private func forEachPage(_ body: (UnsafeRawBufferPointer) throws -> Void) rethrows {
        for region in regions {
            let memory = region.memory
            let count = min(Self.pagesPerRegion, memory.pageCount)
            for place in 0..<count {
                let page = memory.page(place * memory.pageCount / count)
                try body(UnsafeRawBufferPointer(start: page, count: memory.pageSize))
            }
        }
    }
}

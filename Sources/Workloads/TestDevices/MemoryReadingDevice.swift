public import Guest
import LinuxSystem

/// A device that reads guest memory while it loads, as a network card walks its queues: pages must arrive by fault
/// before the workload runs, and be the right ones.
public final class MemoryReadingDevice: Device {
    /// Pages read in each region, spread evenly over it.
    public static let pagesPerRegion = 16

    /// Its name.
    public let name: String
    private let regions: [GuestRegion]

    /// Makes a device that reads in these regions.
    public init(name: String = "reads-memory", regions: [GuestRegion]) {
        self.name = name
        self.regions = regions
    }

    /// Gives a digest of each page it reads.
    public func save() -> [UInt8] {
        var writer = StateWriter()
        forEachPage { writer.append(digest(of: $0, seed: 0)) }
        return writer.bytes
    }

    /// Reads the same pages and compares.
    ///
    /// - Throws: ``DeviceError`` that names the first page that is another.
    public func load(_ state: [UInt8]) throws {
        var reader = StateReader(state, of: name)
        var place = 0
        try forEachPage { page in
            let expected: UInt64 = try reader.nextBits()
            guard digest(of: page, seed: 0) == expected else {
                throw DeviceError(device: name, reason: "page \(place) of those it reads is not the one it saved")
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

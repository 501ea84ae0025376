import FoundationEssentials
package import Guest
import LinuxSystem

/// The configuration of a built-in workload, from which any host makes the same workload.
package struct WorkloadConfiguration: Codable, Hashable, Sendable {
    /// The order in which pages are touched.
    package var pattern: AccessPattern
    /// The memory of all regions together, in bytes: one or more whole pages, at most 2^31.
    package var memoryBytes: Int
    /// The number of regions that the memory is split into, from 1 to 64.
    package var regionCount: Int
    /// Bytes in a page: 4096, or 2 MiB for huge pages.
    package var pageSize: Int
    /// The number of threads, from 1 to 1024; page i belongs to thread i modulo this number.
    package var threads: Int
    /// The share of operations that write, from 0 to 1.
    package var writeFraction: Double
    /// Nanoseconds that a thread rests between two operations, at most an hour.
    package var thinkTime: UInt64
    /// The seed of all draws and of all pages' contents.
    package var seed: UInt64
    /// The file whose lines fill the table of ``AccessPattern/kv``; nil for made-up keys.
    package var load: LineFile?
    /// Devices beyond those every built-in workload has, at most 60.
    package var devices: [DeviceSpecification]
    /// Whether the version of each page travels as a device, beside the memory.
    ///
    /// Without the ledger, the destination believes the version that each page claims. A damaged page or another page's
    /// content is still found wrong, but an outdated page or a page of zeros is not.
    package var hasLedger: Bool

    /// Makes a configuration; ``validate()`` checks its bounds.
    package init(
        pattern: AccessPattern = .random,
        memoryBytes: Int = 256 << 20,
        regionCount: Int = 1,
        pageSize: Int = 4096,
        threads: Int = 1,
        writeFraction: Double = 0.2,
        thinkTime: UInt64 = 0,
        seed: UInt64 = 1,
        load: LineFile? = nil,
        devices: [DeviceSpecification] = [],
        hasLedger: Bool = true
    ) {
        self.pattern = pattern
        self.memoryBytes = memoryBytes
        self.regionCount = regionCount
        self.pageSize = pageSize
        self.threads = threads
        self.writeFraction = writeFraction
        self.thinkTime = thinkTime
        self.seed = seed
        self.load = load
        self.devices = devices
        self.hasLedger = hasLedger
    }

    /// The number of pages in all regions together.
    package var pageCount: Int { memoryBytes / pageSize }

    /// The shapes of the regions, which are equal, except that the last one also takes the remaining pages.
    package var regions: [GuestDescription.Region] {
        let each = pageCount / regionCount
        return (0..<regionCount).map { index in
            let count = index == regionCount - 1 ? pageCount - index * each : each
            return GuestDescription.Region(name: "memory-\(index)", pageSize: pageSize, pageCount: count)
        }
    }

    /// Checks every field against its bounds, and that a migration can carry the workload.
    ///
    /// - Throws: ``WorkloadError`` with the first violation, and the valid values.
    package func validate() throws(WorkloadError) {
        func check(_ condition: Bool, _ message: @autoclosure () -> String) throws(WorkloadError) {
            guard condition else { throw WorkloadError(message()) }
        }
        try check(
            pageSize == 4096 || pageSize == HugePagePool.pageSize,
            "a page cannot have \(pageSize) bytes; only 4096 and \(HugePagePool.pageSize) are served"
        )
        try check(
            memoryBytes > 0 && memoryBytes % pageSize == 0,
            "a memory of \(memoryBytes) bytes is not one or more whole pages of \(pageSize) bytes"
        )
        try check(pageCount <= 1 << 31, "a memory of \(size(memoryBytes)) is too large; \(memoryRemedy)")
        try check(
            (1...min(Self.maxRegions, pageCount)).contains(regionCount),
            "the memory of \(pageCount) pages cannot be split into \(regionCount) regions; "
                + "give 1 to \(min(Self.maxRegions, pageCount))"
        )
        try check(
            (1...min(1024, pageCount)).contains(threads),
            "\(threads) threads cannot share \(pageCount) pages; give 1 to \(min(1024, pageCount))"
        )
        try check((0...1).contains(writeFraction), "a write fraction of \(writeFraction) is not between 0 and 1")
        try check(thinkTime <= 3_600_000_000_000, "a think time of \(thinkTime) ns is longer than an hour")
        try check(
            load == nil || pattern == .kv,
            "a file can be loaded into a table only; choose the workload kv, not \(pattern.rawValue)"
        )
        let most = Self.maxDevices - BuiltInWorkload.ownDevices
        try check(devices.count <= most, "\(devices.count) devices are too many; give at most \(most)")
        try check(
            stateBytes <= Self.maxStateBytes,
            "the state of all devices can have \(stateBytes >> 20) MiB\(hasLedger ? ", 4 bytes a page among them," : "") and at "
                + "most 1024 MiB can be moved; \(stateRemedy)"
        )
        if let load {
            try check(
                (1...LineFile.maximumLineCount).contains(load.lineCount),
                "\(load.path) has \(load.lineCount) lines; give a file of 1 to \(LineFile.maximumLineCount) lines"
            )
        }
    }
}

extension WorkloadConfiguration {
    // The protocol's bounds (see The Wire). A workload beyond them is refused before it begins to run.
    private static let maxRegions = 64
    private static let maxDevices = 64
    private static let maxStateBytes = 1 << 30

    /// An upper bound on the states of all devices but the ledger, in bytes.
    private var otherStateBytes: Int { stateBytes - (hasLedger ? 4 * pageCount : 0) }

    /// The largest memory with a ledger, beside the other devices, in GiB; 0 if those leave no room for one.
    private var mostWithLedger: Int { max(0, ((Self.maxStateBytes - otherStateBytes) / 4 * pageSize) >> 30) }

    /// What to give instead of too large a memory.
    private var memoryRemedy: String {
        let most = size(pageSize << 31)
        guard hasLedger, mostWithLedger > 0 else { return "give at most \(most)" }
        return "give at most \(mostWithLedger) GiB, or at most \(most) with --no-ledger"
    }

    /// What to give instead if the devices' states exceed the bound.
    private var stateRemedy: String {
        guard hasLedger, mostWithLedger > 0 else { return "give smaller devices" }
        let smaller = otherStateBytes > Self.maxStateBytes / 2 ? ", or give smaller devices" : ""
        return "give at most \(mostWithLedger) GiB of memory, or leave the ledger out with --no-ledger\(smaller)"
    }

    /// An upper bound on the size of all devices' states together, in bytes.
    var stateBytes: Int {
        let ledger = hasLedger ? 4 * pageCount : 0
        let own = ledger + ProcessorDevice.stateBytes(threads: threads) + 8 + 8 + ConsoleDevice.capacity
        return devices.reduce(own) { sum, device in
            switch device {
            case .broken, .slow, .disk, .hook: sum + 256
            case .readsMemory: sum + 8 * MemoryReadingDevice.pagesPerRegion * regionCount
            case .large(let mebibytes): sum + mebibytes << 20
            }
        }
    }
}

extension WorkloadConfiguration {
    /// Checks that this host has enough memory, or enough free huge pages, for the workload.
    ///
    /// - Throws: ``WorkloadError`` that says how much is needed and how much is available.
    func checkMemory() throws {
        if pageSize == HugePagePool.pageSize {
            guard let shortage = HugePagePool.shortage(for: pageCount) else { return }
            throw WorkloadError("the workload needs \(pageCount) huge pages of 2 MiB, and on this host \(shortage)")
        }
        guard let available = ProcessFile.availableMemory, memoryBytes > available else { return }
        throw WorkloadError(
            "the workload needs \(memoryBytes >> 20) MiB of memory, and this host has \(available >> 20) MiB available; "
                + "free memory here or use a smaller workload"
        )
    }
}

extension WorkloadConfiguration {
    /// The kind in the description of a built-in workload.
    package static let kind = "built-in"

    /// The description that carries this configuration.
    package var description: GuestDescription {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        // Only a number that is not finite cannot be encoded, and a valid configuration has none.
        guard let bytes = try? encoder.encode(self) else {
            preconditionFailure("a valid configuration has no JSON")
        }
        return GuestDescription(kind: Self.kind, name: pattern.rawValue, configuration: Array(bytes), regions: regions)
    }

    /// Reads and validates the configuration that a description carries.
    ///
    /// - Throws: ``WorkloadError`` if the description is of another kind of workload, malformed or out of bounds.
    package init(_ description: GuestDescription) throws(WorkloadError) {
        guard description.kind == Self.kind else {
            throw WorkloadError("a workload of the kind '\(description.kind)' is not known here")
        }
        do {
            self = try JSONDecoder().decode(Self.self, from: Data(description.configuration))
        } catch {
            throw WorkloadError("the workload's configuration cannot be read: \(error)")
        }
        try validate()
        guard description.regions == regions else {
            throw WorkloadError("the workload's memory regions do not match its configuration")
        }
    }
}

/// A size in the largest unit in which it is a whole number.
private func size(_ bytes: Int) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
    guard let (shift, unit) = units.first(where: { bytes & (1 << $0.0 - 1) == 0 }) else { return "\(bytes) bytes" }
    return "\(bytes >> shift) \(unit)"
}

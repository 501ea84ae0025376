import FoundationEssentials
public import Guest
import LinuxSystem

/// Everything that makes a built-in workload what it is: the same configuration makes the same workload elsewhere.
public struct WorkloadConfiguration: Codable, Hashable, Sendable {
    /// In which order pages are touched.
    public var pattern: AccessPattern
    /// Memory of all regions together, in bytes; whole pages.
    public var memoryBytes: Int
    /// How many regions the memory is split into.
    public var regionCount: Int
    /// Bytes in a page: 4096, or 2 MiB for huge pages.
    public var pageSize: Int
    /// Threads that work, each on pages of its own that lie between those of the others.
    public var threads: Int
    /// Which part of the operations writes, from 0 to 1.
    public var writeFraction: Double
    /// How long a thread rests between two operations, in nanoseconds.
    public var thinkTime: UInt64
    /// What all draws and contents follow from.
    public var seed: UInt64
    /// The file whose lines fill the table of ``AccessPattern/kv``; nil for made-up keys.
    public var load: LineFile?
    /// Devices beside those every workload has.
    public var devices: [DeviceSpecification]
    /// Whether the version of each page travels beside the memory. Without it the side that the workload comes to
    /// believes each page what version it is: a page that is damaged or another's is found wrong, an old one or one of zeros is not.
    public var hasLedger: Bool

    /// Makes a configuration out of its parts; ``validate()`` says whether they go together.
    public init(
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

    /// Pages of all regions together.
    public var pageCount: Int { memoryBytes / pageSize }

    /// The shapes of the regions: equal, but for the last one that takes what is left over.
    public var regions: [GuestDescription.Region] {
        let each = pageCount / regionCount
        return (0..<regionCount).map { index in
            let count = index == regionCount - 1 ? pageCount - index * each : each
            return GuestDescription.Region(name: "memory-\(index)", pageSize: pageSize, pageCount: count)
        }
    }

    /// Checks that the parts go together.
    ///
    /// - Throws: the first thing that is wrong, in the words of a user.
    public func validate() throws(WorkloadError) {
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
        try check(pageCount <= 1 << 31, "a memory of \(memoryBytes) bytes is too large; give at most 2^31 pages")
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
            "the state of all devices can have \(stateBytes) bytes, 4 a page among them, and at most 1024 MiB can be moved; "
                + "give less memory or smaller devices"
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
    // What a migration carries (see The Wire): a workload that exceeds it is refused before it begins to run.
    private static let maxRegions = 64
    private static let maxDevices = 64
    private static let maxStateBytes = 1 << 30

    /// The most bytes that the states of all devices can have together.
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
    /// Whether this host has the memory that the workload needs.
    ///
    /// - Throws: ``WorkloadError`` with how much is there.
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
    /// The kind that a built-in workload's description carries.
    public static let kind = "built-in"

    /// What a destination must know to make the same workload.
    public var description: GuestDescription {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        // Numbers are finite in a valid configuration, and nothing else in it can fail to encode.
        guard let bytes = try? encoder.encode(self) else {
            preconditionFailure("a valid configuration has no JSON")
        }
        return GuestDescription(kind: Self.kind, name: pattern.rawValue, configuration: Array(bytes), regions: regions)
    }

    /// Reads and validates the configuration that a description carries.
    ///
    /// - Throws: ``WorkloadError`` when it is not that of a built-in workload, or contradicts itself.
    public init(_ description: GuestDescription) throws(WorkloadError) {
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
            throw WorkloadError("the workload's regions are not those that its configuration makes")
        }
    }
}

import FoundationEssentials
public import Guest

/// Everything that makes a built-in workload what it is: the same configuration makes the same workload elsewhere.
public struct WorkloadConfiguration: Codable, Hashable, Sendable {
    /// In which order pages are touched.
    public var pattern: AccessPattern
    /// Memory of all regions together, in bytes; whole pages.
    public var memoryBytes: Int
    /// How many regions the memory is split into.
    public var regionCount: Int
    /// Bytes in a page: a power of two from 4096 on.
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
        devices: [DeviceSpecification] = []
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
            (4096...2 << 20).contains(pageSize) && pageSize.nonzeroBitCount == 1,
            "a page cannot have \(pageSize) bytes; give a power of two from 4096 to 2097152"
        )
        try check(
            memoryBytes > 0 && memoryBytes % pageSize == 0,
            "a memory of \(memoryBytes) bytes is not one or more whole pages of \(pageSize) bytes"
        )
        try check(pageCount <= 1 << 31, "a memory of \(memoryBytes) bytes is too large; give at most 2^31 pages")
        try check(
            (1...min(256, pageCount)).contains(regionCount),
            "the memory of \(pageCount) pages cannot be split into \(regionCount) regions; "
                + "give 1 to \(min(256, pageCount))"
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
        try check(devices.count <= 64, "\(devices.count) devices are too many; give at most 64")
        if let load {
            try check(
                (1...LineFile.maximumLineCount).contains(load.lineCount),
                "\(load.path) has \(load.lineCount) lines; give a file of 1 to \(LineFile.maximumLineCount) lines"
            )
        }
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

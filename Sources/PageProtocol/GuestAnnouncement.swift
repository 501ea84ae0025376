/// What the source says of the guest before anything stops.
public struct GuestAnnouncement: Hashable, Sendable {
    /// Which sort of workload it is, 1 to 64 bytes; the destination must know it.
    public var kind: String
    /// What the workload's kind needs to build an empty one, at most 64 KiB; opaque to the protocol.
    public var configuration: [UInt8]
    /// The guest's memory; a frame names a region by its index here.
    public var regions: [RegionShape]

    /// An announcement; ``validate()`` checks its bounds.
    public init(kind: String, configuration: [UInt8], regions: [RegionShape]) {
        self.kind = kind
        self.configuration = configuration
        self.regions = regions
    }

    /// Checks every bound of the announcement, as the encoder and the decoder do.
    ///
    /// - Throws: the first fault found: `outOfBounds`, `controlCharacter`, `duplicateName`, `pageSize`,
    ///   `regionOverflow`, `memoryTooLarge` or `regionsOverlap`.
    public func validate() throws(ProtocolError) {
        try Text.validate(kind, frame: .regions, field: "guest kind", allowed: 1...Wire.maxNameBytes)
        guard configuration.count <= Wire.maxConfigurationBytes else {
            throw .outOfBounds(
                frame: .regions,
                field: "configuration length",
                found: UInt64(configuration.count),
                allowed: 0...UInt64(Wire.maxConfigurationBytes)
            )
        }
        try RegionShape.validate(regions)
    }

    func write(to writer: inout WireWriter) throws(ProtocolError) {
        try validate()
        try writer.append(kind, field: "guest kind", allowed: 1...Wire.maxNameBytes)
        writer.append(UInt32(configuration.count))
        writer.append(configuration)
        writer.append(UInt16(regions.count))
        for region in regions {
            try writer.append(region.name, field: "region name", allowed: 1...Wire.maxNameBytes)
            writer.append(region.guestAddress)
            writer.append(region.pageSize)
            writer.append(region.pageCount)
        }
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
        kind = try reader.readText("guest kind", allowed: 1...Wire.maxNameBytes)
        let length: UInt32 = try reader.read("configuration length")
        try reader.require(UInt64(length), field: "configuration length", in: 0...UInt64(Wire.maxConfigurationBytes))
        configuration = [UInt8](try reader.readBytes(Int(length), "configuration"))
        let count: UInt16 = try reader.read("region count")
        try reader.require(UInt64(count), field: "region count", in: 1...UInt64(Wire.maxRegions))
        regions = []
        regions.reserveCapacity(Int(count))
        for _ in 0..<count {
            let name = try reader.readText("region name", allowed: 1...Wire.maxNameBytes)
            let guestAddress: UInt64 = try reader.read("guest address")
            let pageSize: UInt32 = try reader.read("page size")
            let pageCount: UInt64 = try reader.read("page count")
            regions.append(
                RegionShape(name: name, guestAddress: guestAddress, pageSize: pageSize, pageCount: pageCount)
            )
        }
        try RegionShape.validate(regions)
    }
}

/// The source's description of the guest, sent before the workload stops.
package struct GuestAnnouncement: Hashable, Sendable {
    /// The kind of workload, 1 to 64 bytes; the destination must know it.
    package var kind: String
    /// What the destination needs to build an empty workload of this kind, at most 64 KiB; opaque to the protocol.
    package var configuration: [UInt8]
    /// The regions of the guest's memory; a frame names a region by its index here.
    package var regions: [RegionShape]

    /// An announcement; ``validate()`` checks its bounds.
    package init(kind: String, configuration: [UInt8], regions: [RegionShape]) {
        self.kind = kind
        self.configuration = configuration
        self.regions = regions
    }

    /// Checks every bound of the announcement, as the encoder and the decoder do.
    ///
    /// - Throws: the first fault found: `outOfBounds`, `controlCharacter`, `duplicateName`, `pageSize`,
    ///   `regionOverflow`, `memoryTooLarge` or `regionsOverlap`.
    package func validate() throws(ProtocolError) {
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

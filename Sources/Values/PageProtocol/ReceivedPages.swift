/// Which pages of one part of a region the destination has.
package struct ReceivedPages: Hashable, Sendable {
    /// The region's index in REGIONS.
    package var region: UInt32
    /// The page that the first bit stands for, a multiple of 8.
    package var first: UInt64
    /// One bit for each page, 1 byte to 1 MiB.
    ///
    /// The lowest bit of each byte comes first. Bits beyond the region's end are 0.
    package var bits: [UInt8]

    /// A report of the pages whose bits are set.
    package init(region: UInt32, first: UInt64, bits: [UInt8]) {
        self.region = region
        self.first = first
        self.bits = bits
    }
}

extension ReceivedPages {
    func write(to writer: inout WireWriter) throws(ProtocolError) {
        writer.append(region)
        writer.append(first)
        try writer.require(UInt64(bits.count), field: "bitmap length", in: 1...UInt64(Wire.maxReceivedBytes))
        writer.append(bits)
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
        region = try reader.read("region")
        first = try reader.read("first page")
        bits = reader.readRest()
    }
}

/// Which pages of one part of a region the destination has.
public struct ReceivedPages: Hashable, Sendable {
    /// The region's index in REGIONS.
    public var region: UInt32
    /// The page that the first bit stands for, a multiple of 8.
    public var first: UInt64
    /// A bit a page, the lowest of each byte first; bits beyond the region's end are 0. 1 byte to 1 MiB.
    public var bits: [UInt8]

    /// Says which pages are there.
    public init(region: UInt32, first: UInt64, bits: [UInt8]) {
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

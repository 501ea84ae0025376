/// The constants of the wire: identity, version and the bounds that every receiver applies.
package enum Wire {
    /// The bytes `P G F Y` read as a little-endian integer; HELLO and JOIN begin with them.
    package static let magic: UInt32 = 0x5946_4750

    /// The protocol version spoken here; peers of another version are refused.
    package static let version: UInt16 = 1

    /// Bytes of the header before every payload: u32 payload length, u16 kind, u16 reserved.
    package static let headerByteCount = 8

    /// Bound of a HELLO's or JOIN's payload in any version, in bytes.
    package static let maxOpeningBytes = 4096

    /// Bound of a reason and of a lease's store and workload, in bytes of UTF-8.
    package static let maxTextBytes = 1024

    /// Bound of a name (guest kind, region, device), in bytes of UTF-8.
    package static let maxNameBytes = 64

    /// Bound of a guest's configuration, in bytes.
    package static let maxConfigurationBytes = 64 << 10

    /// Most regions that a guest may have.
    package static let maxRegions = 64

    /// Most slices of a snapshot's file that a restored guest may have.
    package static let maxSlices = 4096

    /// Most urgent lanes that a migration may have.
    package static let maxUrgentLanes = 16

    /// Most bulk lanes that a migration may have.
    package static let maxBulkLanes = 64

    /// Most memory that a guest may have, in bytes.
    package static let maxMemoryBytes: UInt64 = 1 << 46

    /// Smallest page of a region, in bytes.
    @inlinable
    package static var minPageSize: UInt32 { 4096 }

    /// Largest page of a region, in bytes.
    @inlinable
    package static var maxPageSize: UInt32 { 1 << 30 }

    /// Most devices that may be announced.
    package static let maxDevices = 64

    /// Bound of one DEVICE_DATA chunk, in bytes.
    package static let maxDeviceChunkBytes = 1 << 20

    /// Bound of one RECEIVED's bits, in bytes.
    package static let maxReceivedBytes = 1 << 20

    /// Bound of all device states together, in bytes.
    package static let maxDeviceBytes: UInt64 = 1 << 30

    /// Bound of the bytes that one PAGES frame carries or one PAGE_REQUEST asks for.
    ///
    /// If a page is larger than the bound, the frame names exactly one page.
    @inlinable
    package static var maxRunBytes: UInt32 { 1 << 20 }

    /// Bound of the bytes of pages that are compressed together; larger pages go uncompressed.
    @inlinable
    package static var maxCompressedRunBytes: UInt32 { 2 << 20 }

    /// Bytes that follow a PROBE_REPLY.
    @inlinable
    package static var probeReplyBytes: UInt32 { 4096 }
}

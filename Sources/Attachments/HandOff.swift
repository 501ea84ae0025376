import LinuxSystem

/// What a process says when it hands its userfaultfd over: its regions. Little-endian, one `sendmsg`, with the
/// userfaultfd in SCM_RIGHTS of the same message.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u32 | magic `PGHO`, 0x4f484750 |
/// | 4 | u16 | version, 1 |
/// | 6 | u16 | number of regions, 1…64 |
/// | 8 + 24 n | u64 | address of region n in the process, a multiple of its page size |
/// | 16 + 24 n | u64 | bytes of region n, a multiple of its page size |
/// | 24 + 24 n | u32 | page size, 4096 or 2097152 |
/// | 28 + 24 n | u32 | reserved, 0 |
struct HandOff {
    static let magic: UInt32 = 0x4f48_4750
    static let version: UInt16 = 1
    static let maxRegions = 64
    static let maxBytes = 8 + 24 * maxRegions

    let ranges: [PageRange]

    init(_ bytes: [UInt8]) throws(AttachmentError) {
        func integer<Value: FixedWidthInteger>(_ offset: Int, as type: Value.Type) -> Value {
            bytes.withUnsafeBytes { Value(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Value.self)) }
        }
        guard bytes.count >= 8 else {
            throw AttachmentError("the hand-off has \(bytes.count) bytes, less than its header")
        }
        guard integer(0, as: UInt32.self) == HandOff.magic else {
            throw AttachmentError("the hand-off does not begin with the magic PGHO")
        }
        let version = integer(4, as: UInt16.self)
        guard version == HandOff.version else {
            throw AttachmentError("the hand-off has version \(version), this is version \(HandOff.version)")
        }
        let count = Int(integer(6, as: UInt16.self))
        guard (1...HandOff.maxRegions).contains(count), bytes.count == 8 + 24 * count else {
            throw AttachmentError("the hand-off says \(count) regions and has \(bytes.count) bytes")
        }
        var ranges: [PageRange] = []
        for region in 0..<count {
            let offset = 8 + 24 * region
            let pageSize = Int(integer(offset + 16, as: UInt32.self))
            guard pageSize == 4096 || pageSize == HugePagePool.pageSize else {
                throw AttachmentError(
                    "region \(region) has pages of \(pageSize) bytes; only 4096 and \(HugePagePool.pageSize) are served"
                )
            }
            let (address, size) = (integer(offset, as: UInt64.self), integer(offset + 8, as: UInt64.self))
            let page = UInt64(pageSize)
            guard address % page == 0, size % page == 0, size > 0, !address.addingReportingOverflow(size).overflow,
                address + size <= 1 << 56
            else { throw AttachmentError("region \(region) (address \(address), \(size) bytes) is no range of pages") }
            ranges.append(PageRange(address: address, pageSize: pageSize, pageCount: Int(size / page)))
        }
        let ordered = ranges.sorted { $0.address < $1.address }
        for (first, second) in zip(ordered, ordered.dropFirst()) where first.address + first.byteCount > second.address
        {
            throw AttachmentError("two regions overlap at address \(second.address)")
        }
        self.ranges = ranges
    }
}

/// A process that cannot be attached, or an attached one that failed.
public struct AttachmentError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Why, in one line.
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}

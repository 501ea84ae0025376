import LinuxSystem

/// What a process says when it hands its userfaultfd over: its regions. Little-endian, one `sendmsg`, with the
/// userfaultfd in SCM_RIGHTS of the same message.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u32 | magic `PGHO`, 0x4f484750 |
/// | 4 | u16 | version, 1 or 2 |
/// | 6 | u16 | number of regions, 1…64 |
/// | 8 + r n | u64 | address of region n in the process, a multiple of its page size |
/// | 16 + r n | u64 | bytes of region n, a multiple of its page size |
/// | 24 + r n | u32 | page size, 4096 or 2097152 |
/// | 28 + r n | u32 | in version 1 reserved, 0; in version 2 the memory file behind region n, 0 for none |
/// | 32 + r n | u64 | only in version 2: where region n begins in its memory file, a multiple of its page size |
///
/// A region's record has r bytes: 24 in version 1, 32 in version 2. Memory files travel behind the userfaultfd: file 1
/// is the first of them. All regions together have at most 1 TiB. What follows is in ``AttachedProcess``.
struct HandOff {
    static let magic: UInt32 = 0x4f48_4750
    static let newestVersion: UInt16 = 2
    static let maxRegions = 64
    static let maxFiles = StreamSocket.DescriptorMessage.maxDescriptors - 1
    static let maxBytes = 8 + 32 * maxRegions
    /// Bytes of all regions: what is noted of their pages takes memory here, 32 MiB for these.
    static let maxMemoryBytes: UInt64 = 1 << 40

    /// A place in a memory file that came with the message.
    struct FilePlace {
        /// Which of the descriptors: 1 is the one behind the userfaultfd.
        let descriptor: Int
        /// In bytes.
        let offset: UInt64
    }

    let ranges: [PageRange]
    /// Where the ranges are to be found in memory files, one a range.
    let files: [FilePlace?]

    /// The userfaultfd and all memory files.
    var descriptorCount: Int { 1 + (files.lazy.compactMap { $0?.descriptor }.max() ?? 0) }

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
        guard (1...HandOff.newestVersion).contains(version) else {
            throw AttachmentError("the hand-off has version \(version), the newest here is \(HandOff.newestVersion)")
        }
        let recordBytes = version == 1 ? 24 : 32
        let count = Int(integer(6, as: UInt16.self))
        guard (1...HandOff.maxRegions).contains(count), bytes.count == 8 + recordBytes * count else {
            throw AttachmentError("the hand-off says \(count) regions and has \(bytes.count) bytes")
        }
        var ranges: [PageRange] = []
        var files: [FilePlace?] = []
        var total: UInt64 = 0
        for region in 0..<count {
            let offset = 8 + recordBytes * region
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
            total += size
            guard total <= HandOff.maxMemoryBytes else {
                throw AttachmentError("the regions up to region \(region) have more than 1 TiB together")
            }
            ranges.append(PageRange(address: address, pageSize: pageSize, pageCount: Int(size / page)))
            let file = Int(integer(offset + 20, as: UInt32.self))
            guard version > 1 || file == 0 else {
                throw AttachmentError(
                    "region \(region) has \(file) where version 1 has 0; memory files are of version 2"
                )
            }
            guard file <= HandOff.maxFiles else {
                throw AttachmentError(
                    "region \(region) names memory file \(file); at most \(HandOff.maxFiles) can be handed over"
                )
            }
            files.append(file == 0 ? nil : FilePlace(descriptor: file, offset: integer(offset + 24, as: UInt64.self)))
        }
        let ordered = ranges.sorted { $0.address < $1.address }
        for (first, second) in zip(ordered, ordered.dropFirst()) where first.address + first.byteCount > second.address
        {
            throw AttachmentError("two regions overlap at address \(second.address)")
        }
        self.ranges = ranges
        self.files = files
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

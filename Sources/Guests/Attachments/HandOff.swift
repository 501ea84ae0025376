import LinuxSystem

/// The hand-off message of a process that attaches: its memory regions and, since version 3, what it is.
///
/// The process sends the message with one `sendmsg`, with its descriptors in SCM_RIGHTS of the same message. The articles
/// <doc:AttachAProcess> and <doc:HandOffVersions1And2> have the fields. The messages after the hand-off are described at
/// ``AttachedProcess``.
struct HandOff {
    static let magic: UInt32 = 0x4f48_4750
    static let newestVersion: UInt16 = 3
    static let maxRegions = 64
    static let maxNameBytes = 64
    static let maxFiles = StreamSocket.DescriptorMessage.maxDescriptors - 1
    static let maxBytes = 16 + 32 * maxRegions + maxNameBytes
    /// The most bytes of all regions together, 1 TiB, for which each bitmap of their pages takes 32 MiB.
    static let maxMemoryBytes: UInt64 = 1 << 40

    /// What the process does: it has the workload, or waits for one.
    enum Role: UInt16 {
        /// The workload runs in the process, and can move away.
        case runs = 1
        /// The process has empty memory, and its userfaultfd came with the message.
        case waits = 2
    }

    /// What a process can do beyond what every process must.
    struct Abilities: OptionSet {
        let rawValue: UInt16
        /// The process answers VERIFY.
        static let verify = Abilities(rawValue: 1)
        /// The process drops memory when it receives FREE.
        static let free = Abilities(rawValue: 2)
        static let all: Abilities = [.verify, .free]
    }

    /// A place in a memory file that came with the message.
    struct FilePlace {
        /// The index among the message's descriptors.
        let descriptor: Int
        /// The offset in the file, in bytes.
        let offset: UInt64
    }

    let version: UInt16
    let role: Role
    let abilities: Abilities
    /// The workload's name; nil before version 3.
    let name: String?
    let ranges: [PageRange]
    /// The places of the ranges in memory files, one per range; nil for a range without a file.
    let files: [FilePlace?]

    /// The number of descriptors that must come with the message: the userfaultfd, if any, and all memory files.
    var descriptorCount: Int {
        // The userfaultfd is descriptor 0 of a process that waits.
        files.lazy.compactMap { $0.map { $0.descriptor + 1 } }.max() ?? (role == .waits ? 1 : 0)
    }

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
        version = integer(4, as: UInt16.self)
        guard (1...HandOff.newestVersion).contains(version) else {
            throw AttachmentError("the hand-off has version \(version), the newest here is \(HandOff.newestVersion)")
        }
        let headerBytes = version < 3 ? 8 : 16
        let recordBytes = version == 1 ? 24 : 32
        let count = Int(integer(6, as: UInt16.self))
        guard bytes.count >= headerBytes else {
            throw AttachmentError("the hand-off has \(bytes.count) bytes, less than its header")
        }
        let nameBytes = version < 3 ? 0 : Int(integer(12, as: UInt16.self))
        guard (1...HandOff.maxRegions).contains(count), nameBytes <= HandOff.maxNameBytes,
            bytes.count == headerBytes + recordBytes * count + nameBytes
        else {
            let named = version < 3 ? "" : ", a name of \(nameBytes) bytes,"
            throw AttachmentError("the hand-off announces \(count) regions\(named) and has \(bytes.count) bytes")
        }
        if version < 3 {
            (role, abilities, name) = (.waits, [], nil)
        } else {
            let number = integer(8, as: UInt16.self)
            guard let role = Role(rawValue: number) else {
                throw AttachmentError("the hand-off has the role \(number); 1 runs the workload, and 2 waits for one")
            }
            self.role = role
            abilities = Abilities(rawValue: integer(10, as: UInt16.self))
            guard abilities.isSubset(of: .all), integer(14, as: UInt16.self) == 0 else {
                throw AttachmentError("the hand-off has abilities or reserved bits that version 3 does not define")
            }
            guard nameBytes > 0, let name = String(validating: bytes.suffix(nameBytes), as: UTF8.self) else {
                throw AttachmentError("the hand-off has no name of 1 to \(HandOff.maxNameBytes) bytes of UTF-8")
            }
            self.name = name
        }
        var ranges: [PageRange] = []
        var files: [FilePlace?] = []
        var total: UInt64 = 0
        for region in 0..<count {
            let offset = headerBytes + recordBytes * region
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
            let place = version == 1 ? 0 : integer(offset + 24, as: UInt64.self)
            guard version < 3 || place <= 1 << 56 && (file != 0 || place == 0) else {
                throw AttachmentError("region \(region) begins at byte \(place), and no memory file has that byte")
            }
            files.append(file == 0 ? nil : FilePlace(descriptor: role == .waits ? file : file - 1, offset: place))
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

/// A process that could not attach, or an attached process that failed.
package struct AttachmentError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What failed and why, in one line for a person.
    package let description: String

    init(_ description: String) {
        self.description = description
    }
}

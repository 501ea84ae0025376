import Foundation
public import LinuxSystem

/// What Firecracker says when it restores a snapshot and hands its userfaultfd over: a JSON array of the guest's regions,
/// in one message with the userfaultfd (`docs/snapshotting/handling-page-faults-on-snapshot-resume.md` there).
///
/// Since 1.7 it says the size of a page as `page_size_kib`, in bytes all the same; since 1.12 as `page_size` too. From 1.12
/// on the socket stays open as long as it lives.
public struct FirecrackerHandOff: Hashable, Sendable {
    /// The guest's memory, or a part of it.
    public struct Region: Hashable, Sendable {
        /// Where it is in Firecracker's process.
        public var range: PageRange
        /// Where it begins in the file of the guest's memory, in bytes.
        public var offset: UInt64
    }

    /// The regions, in the order they were told.
    public let regions: [Region]
    /// Whether a socket that is closed says that the process has ended.
    public let keepsSocketOpen: Bool

    /// The longest message that is read, in bytes.
    public static let maxBytes = 1 << 16
    private static let maxRegions = 64
    /// Where the last region ends in the file at most: 16 TiB.
    private static let maxFileBytes: UInt64 = 1 << 44
    /// Descriptors that may come: the userfaultfd, and one that versions may add.
    static let descriptorCounts = 1...2

    private struct Mapping: Decodable {
        let address: UInt64
        let size: UInt64
        let offset: UInt64
        let pageSize: UInt64?
        let pageSizeInOldKey: UInt64?

        enum CodingKeys: String, CodingKey {
            case address = "base_host_virt_addr", size, offset, pageSize = "page_size"
            case pageSizeInOldKey = "page_size_kib"
        }
    }

    /// Reads a message.
    ///
    /// - Throws: ``AttachmentError`` with what is wrong with it.
    public init(_ bytes: [UInt8]) throws(AttachmentError) {
        let mappings: [Mapping]
        do {
            mappings = try JSONDecoder().decode([Mapping].self, from: Data(bytes))
        } catch {
            throw AttachmentError("the hand-off of \(bytes.count) bytes is not the JSON that Firecracker sends")
        }
        guard (1...FirecrackerHandOff.maxRegions).contains(mappings.count) else {
            throw AttachmentError("the hand-off has \(mappings.count) regions; there are 1 to 64")
        }
        var regions: [Region] = []
        var total: UInt64 = 0
        for (index, mapping) in mappings.enumerated() {
            let pageSize = mapping.pageSize ?? mapping.pageSizeInOldKey ?? 4096
            guard pageSize == 4096 || pageSize == UInt64(HugePagePool.pageSize) else {
                throw AttachmentError("region \(index) has pages of \(pageSize) bytes; 4096 and 2097152 are served")
            }
            guard pageSize == UInt64(regions.first?.range.pageSize ?? Int(pageSize)) else {
                throw AttachmentError("region \(index) has pages of another size than the first")
            }
            let end = mapping.address.addingReportingOverflow(mapping.size)
            guard mapping.address % pageSize == 0, mapping.size % pageSize == 0, mapping.size > 0, !end.overflow,
                end.partialValue <= 1 << 56
            else {
                throw AttachmentError(
                    "region \(index) (address \(mapping.address), \(mapping.size) bytes) is no range of pages"
                )
            }
            guard mapping.offset % 4096 == 0 else {
                throw AttachmentError("region \(index) begins at byte \(mapping.offset) of the snapshot, inside a page")
            }
            guard mapping.size <= FirecrackerHandOff.maxFileBytes,
                mapping.offset <= FirecrackerHandOff.maxFileBytes - mapping.size
            else {
                throw AttachmentError("region \(index) ends beyond the first 16 TiB of the snapshot")
            }
            total += mapping.size
            guard total <= HandOff.maxMemoryBytes else {
                throw AttachmentError("the regions up to region \(index) have more than 1 TiB together")
            }
            let range = PageRange(
                address: mapping.address,
                pageSize: Int(pageSize),
                pageCount: Int(mapping.size / pageSize)
            )
            regions.append(Region(range: range, offset: mapping.offset))
        }
        try FirecrackerHandOff.refuseOverlaps(regions, "address") { $0.range.address }
        try FirecrackerHandOff.refuseOverlaps(regions, "byte of the snapshot") { $0.offset }
        self.regions = regions
        keepsSocketOpen = mappings.allSatisfy { $0.pageSize != nil }
    }

    private static func refuseOverlaps(
        _ regions: [Region],
        _ what: String,
        _ begin: (Region) -> UInt64
    ) throws(AttachmentError) {
        let ordered = regions.sorted { begin($0) < begin($1) }
        for (first, second) in zip(ordered, ordered.dropFirst())
        where begin(first) + first.range.byteCount > begin(second) {
            throw AttachmentError("two regions overlap at \(what) \(begin(second))")
        }
    }
}

/// A process that has handed its userfaultfd over as Firecracker does.
public struct FirecrackerGuest: ~Copyable, Sendable {
    /// What it said.
    public let handOff: FirecrackerHandOff
    /// Where its memory is registered.
    public let userfaultfd: Userfaultfd
    /// The process.
    public let process: PeerProcess
    /// The connection that it came over.
    public let socket: SharedSocket

    /// Gives the userfaultfd to whoever serves the faults.
    public consuming func takeUserfaultfd() -> Userfaultfd {
        userfaultfd
    }

    /// Takes what a process has handed over.
    ///
    /// - Parameter message: at most ``FirecrackerHandOff/maxBytes``.
    public init(
        from connection: consuming StreamSocket,
        _ message: consuming StreamSocket.DescriptorMessage
    ) throws {
        let handOff = try FirecrackerHandOff(message.bytes)
        guard FirecrackerHandOff.descriptorCounts.contains(message.descriptorCount) else {
            throw AttachmentError("the hand-off came with \(message.descriptorCount) descriptors instead of one")
        }
        let process = try PeerProcess(peerOf: connection)
        userfaultfd = try message.takeUserfaultfd(serving: .eventRemove)
        self.handOff = handOff
        self.process = process
        socket = SharedSocket(connection)
    }
}

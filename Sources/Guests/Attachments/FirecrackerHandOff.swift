import Foundation
package import LinuxSystem

/// Firecracker's hand-off message when it restores a snapshot: the guest's memory regions, as a JSON array.
///
/// The userfaultfd comes with the same message. Firecracker describes the message in
/// `docs/snapshotting/handling-page-faults-on-snapshot-resume.md`. Its releases differ: since 1.7 the message has the
/// page size as `page_size_kib`, which is in bytes despite its name; since 1.12 also as `page_size`. Since 1.12
/// Firecracker keeps the socket open for as long as it runs. StratoVirt sends the array as member `mappings` of an
/// object, with hyphens in the names of the members.
package struct FirecrackerHandOff: Hashable, Sendable {
    /// A part of the guest's memory.
    package struct Region: Hashable, Sendable {
        /// The region's addresses in Firecracker's process.
        package var range: PageRange
        /// The region's offset in the snapshot's memory file, in bytes.
        package var offset: UInt64
    }

    /// The regions, in the order of the message.
    package let regions: [Region]
    /// Whether the process keeps its socket open, so that a closed socket means that the process has ended.
    package let keepsSocketOpen: Bool
    /// The members of the first region that are texts, which no release of Firecracker sends.
    private let texts: [String: String]

    /// The longest accepted message, in bytes.
    package static let maxBytes = 1 << 20
    private static let maxRegions = 4096
    /// The highest offset at which a region may end in the memory file, in bytes: 16 TiB.
    private static let maxFileBytes: UInt64 = 1 << 44
    /// How many descriptors a message may carry: the userfaultfd, and one that later releases may add.
    static let descriptorCounts = 1...2
    /// How many descriptors the hand-off of any known release carries.
    private static let knownDescriptors = 3

    private struct Wrapped: Decodable {
        let mappings: [Mapping]
    }

    private struct Mapping: Decodable {
        let address: UInt64
        let size: UInt64
        let offset: UInt64
        let pageSize: UInt64?
        let pageSizeInOldKey: UInt64?
        /// Every member that is a text; of the first mapping only.
        let texts: [String: String]

        init(from decoder: any Decoder) throws {
            let members = try decoder.container(keyedBy: CodingKeys.self)
            address = try members.decode(UInt64.self, forKey: .address)
            size = try members.decode(UInt64.self, forKey: .size)
            offset = try members.decode(UInt64.self, forKey: .offset)
            pageSize = try members.decodeIfPresent(UInt64.self, forKey: .pageSize)
            pageSizeInOldKey = try members.decodeIfPresent(UInt64.self, forKey: .pageSizeInOldKey)
            guard decoder.codingPath.last?.intValue == 0 else {
                texts = [:]
                return
            }
            let all = try decoder.container(keyedBy: Name.self)
            texts = all.allKeys.reduce(into: [:]) { texts, key in
                // A member that is no text names nothing.
                texts[FirecrackerHandOff.spelled(key.stringValue)] = try? all.decode(String.self, forKey: key)
            }
        }

        struct Name: CodingKey {
            let stringValue: String
            var intValue: Int? { nil }
            init(stringValue: String) { self.stringValue = stringValue }
            init?(intValue: Int) { nil }
        }

        enum CodingKeys: String, CodingKey {
            case address = "base_host_virt_addr", size, offset, pageSize = "page_size"
            case pageSizeInOldKey = "page_size_kib"
        }
    }

    /// Reads a hand-off message, and checks every region against its bounds.
    ///
    /// - Throws: ``AttachmentError`` with the first fault found.
    package init(_ bytes: [UInt8]) throws(AttachmentError) {
        guard let (mappings, isWrapped) = FirecrackerHandOff.mappings(in: bytes) else {
            // The decoder's error would not help, since the sender is another program or an unknown release.
            throw AttachmentError("the hand-off of \(bytes.count) bytes is not the JSON that Firecracker sends")
        }
        guard (1...FirecrackerHandOff.maxRegions).contains(mappings.count) else {
            throw AttachmentError(
                "the hand-off has \(mappings.count) regions; there are 1 to \(FirecrackerHandOff.maxRegions)"
            )
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
        texts = mappings[0].texts
        keepsSocketOpen = !isWrapped && mappings.allSatisfy { $0.pageSize != nil }
    }

    /// A text that the process adds to the first region under this name; nil if there is none.
    package func text(of name: String) -> String? { texts[FirecrackerHandOff.spelled(name)] }

    /// The name of a member as releases with underscores spell it.
    private static func spelled(_ name: String) -> String { name.replacing("-", with: "_") }

    /// The mappings that a message lists, and whether they are wrapped in an object; nil if the message is not whole, or
    /// is another one.
    private static func mappings(in bytes: [UInt8]) -> (mappings: [Mapping], isWrapped: Bool)? {
        // A string of C may end with a zero byte.
        let text = Data(bytes.prefix(upTo: 1 + (bytes.lastIndex { $0 != 0 } ?? -1)))
        let decoder = JSONDecoder()
        // An array may be whole, and so may an object: whatever is neither is refused with one reason.
        if let mappings = try? decoder.decode([Mapping].self, from: text) { return (mappings, false) }
        decoder.keyDecodingStrategy = .custom { path in
            Mapping.Name(stringValue: spelled(path.last?.stringValue ?? ""))
        }
        // As above.
        return (try? decoder.decode(Wrapped.self, from: text)).map { ($0.mappings, true) }
    }

    /// The error of a hand-off whose userfaultfd the kernel has discarded.
    package static let lostDescriptors = AttachmentError(
        "the userfaultfd was lost, since this process or host has too many open files; raise `ulimit -n`, and restore the "
            + "guest again"
    )

    /// Nanoseconds in which all parts of a hand-off must have come.
    private static let patience: UInt64 = 1_000_000_000
    /// The most parts of a hand-off.
    private static let maxParts = 64

    /// Receives the parts of a hand-off that follow its first part, until its JSON is whole.
    ///
    /// - Returns: what has come within 1 s, which may not be whole.
    /// - Throws: `SystemError` if the connection breaks.
    package static func gather(
        _ first: consuming StreamSocket.DescriptorMessage,
        from socket: borrowing StreamSocket
    ) throws(SystemError) -> StreamSocket.DescriptorMessage {
        let deadline = MonotonicClock.now() + patience
        var message = first
        for _ in 1..<maxParts {
            let room = maxBytes - message.bytes.count
            guard room > 0, message.descriptorCount <= knownDescriptors, mappings(in: message.bytes) == nil,
                try socket.waitToReceive(before: deadline)
            else { break }
            let next = try socket.receiveDescriptors(maxBytes: room)
            guard !next.bytes.isEmpty || next.descriptorCount > 0 else { break }
            message = message.followed(by: next)
        }
        return message
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

/// A process that has handed over its userfaultfd as Firecracker does.
package struct FirecrackerGuest: ~Copyable, Sendable {
    /// The process's hand-off message.
    package let handOff: FirecrackerHandOff
    /// The userfaultfd with which the process's memory is registered.
    package let userfaultfd: Userfaultfd
    /// The process at the other end of the connection.
    package let process: PeerProcess
    /// The connection on which the hand-off came.
    package let socket: SharedSocket

    /// Moves the userfaultfd and the process out, into a value that needs both.
    package consuming func split<Whole: ~Copyable>(
        _ join: (consuming Userfaultfd, consuming PeerProcess) -> Whole
    ) -> Whole {
        join(userfaultfd, process)
    }

    /// Moves the userfaultfd out, for the code that serves the faults.
    package consuming func takeUserfaultfd() -> Userfaultfd {
        userfaultfd
    }

    /// Makes a guest of a connection and the hand-off message that came over it.
    ///
    /// - Parameters:
    ///   - connection: the connection to the process, which the guest keeps as ``socket``.
    ///   - message: a message of at most ``FirecrackerHandOff/maxBytes`` bytes.
    /// - Throws: ``AttachmentError`` if the message is invalid, `HandedDescriptorError` if its descriptor is not a
    ///   suitable userfaultfd, `SystemError` if the process is not visible here.
    package init(
        from connection: SharedSocket,
        _ message: consuming StreamSocket.DescriptorMessage
    ) throws {
        let handOff = try FirecrackerHandOff(message.bytes)
        guard !message.hasLostDescriptors else {
            throw FirecrackerHandOff.lostDescriptors
        }
        guard FirecrackerHandOff.descriptorCounts.contains(message.descriptorCount) else {
            // Three are those of Firecracker's branch feature/secret-hiding: guest_memfd and a bitmap of the pages.
            let remedy =
                message.descriptorCount == 3
                ? ", as of a Firecracker with secret-free memory; restore the snapshot without guest_memfd" : ""
            throw AttachmentError(
                "the hand-off came with \(message.descriptorCount) descriptors instead of one\(remedy)"
            )
        }
        let process = try PeerProcess(peerOf: connection.stream, orOutside: true)
        guard process.canBeSignalled || !handOff.regions.contains(where: \.range.isHuge) else {
            throw AttachmentError(
                "the page table of a process with huge pages must be visible; run in a PID namespace that shows the "
                    + "process"
            )
        }
        userfaultfd = try message.takeUserfaultfd(serving: .eventRemove)
        self.handOff = handOff
        self.process = process
        socket = connection
    }
}

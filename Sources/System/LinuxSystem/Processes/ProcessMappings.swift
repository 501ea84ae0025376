/// The mappings of another process, as `/proc/PID/smaps` lists them.
package struct ProcessMappings: Sendable {
    /// Contiguous addresses that are mapped alike.
    struct Piece: Hashable, Sendable {
        var addresses: Range<UInt64>
        /// Whether the process can read and write them.
        var isUsable: Bool
        /// Whether changes are shared with the file's other mappings.
        var isShared: Bool
        /// Where the addresses begin in the file, in bytes.
        var offset: UInt64
        var file: StreamSocket.FileIdentity
        var pageSize = 4096
        /// Whether a userfaultfd is registered.
        var isWatched = false
        /// Whether the mapping has no reservation in its pool of huge pages (MAP_NORESERVE).
        var isUnreserved = false
        /// Bytes of huge pages that are present.
        var hugeBytes: UInt64 = 0
    }

    let pieces: [Piece]

    /// Reads the mappings of a process.
    ///
    /// - Throws: `SystemError` if this process may not read them.
    package init(of process: Int32) throws(SystemError) {
        do {
            self.init(smaps: try ProcessFile.read("/proc/\(process)/smaps"))
        } catch {
            throw SystemError(
                "read the mappings of process \(process)",
                error.errno,
                advice: "run the agent as its user, or as root"
            )
        }
    }

    /// Reads the text of `/proc/PID/smaps` (proc_pid_smaps(5)); lines of another form are skipped.
    init(smaps text: String) {
        var pieces: [Piece] = []
        for line in text.split(separator: "\n") {
            if let piece = ProcessMappings.piece(line) {
                pieces.append(piece)
            } else if !pieces.isEmpty, line.hasPrefix("KernelPageSize:") {
                let kibibytes = line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 4
                // The largest page of any architecture has 16 GiB.
                pieces[pieces.count - 1].pageSize = min(max(kibibytes, 1), 1 << 24) << 10
            } else if !pieces.isEmpty, line.hasPrefix("VmFlags:") {
                let flags = line.split(separator: " ").dropFirst()
                pieces[pieces.count - 1].isWatched = flags.contains { ["um", "uw", "ui"].contains($0) }
                pieces[pieces.count - 1].isUnreserved = flags.contains("nr")
            } else if !pieces.isEmpty, line.hasPrefix("Private_Hugetlb:") || line.hasPrefix("Shared_Hugetlb:") {
                let kibibytes = line.split(separator: " ").dropFirst().first.flatMap { UInt64($0) } ?? 0
                // No process has more than 2^57 bytes.
                pieces[pieces.count - 1].hugeBytes += min(kibibytes, 1 << 47) << 10
            }
        }
        self.pieces = pieces
    }

    /// Reads a line such as `7f00-7f10 rw-s 00002000 00:01 42 /memfd:name (deleted)`.
    private static func piece(_ line: Substring) -> Piece? {
        let fields = line.split(separator: " ", maxSplits: 5)
        guard fields.count >= 5, fields[1].count == 4 else { return nil }
        let ends = fields[0].split(separator: "-").map { UInt64($0, radix: 16) }
        let device = fields[3].split(separator: ":").map { UInt32($0, radix: 16) }
        guard ends.count == 2, let first = ends[0], let end = ends[1], first <= end, device.count == 2,
            let major = device[0], let minor = device[1], let number = UInt64(fields[4]),
            let offset = UInt64(fields[2], radix: 16)
        else { return nil }
        return Piece(
            addresses: first..<end,
            isUsable: fields[1].hasPrefix("rw"),
            isShared: fields[1].hasSuffix("s"),
            offset: offset,
            file: StreamSocket.FileIdentity(major: major, minor: minor, number: number)
        )
    }

    /// The most huge pages that the process may still take from the pool in these ranges.
    ///
    /// A private mapping with a reservation takes its pages from that. A shared mapping may find its pages in its file.
    /// Neither is counted.
    package func unreservedHugePages(in ranges: [PageRange]) -> Int {
        var bytes: UInt64 = 0
        for piece in pieces where piece.isUnreserved && !piece.isShared && piece.pageSize == HugePagePool.pageSize {
            let handed = ranges.reduce(UInt64(0)) { sum, range in
                let part = piece.addresses.clamped(to: range.address..<range.address + range.byteCount)
                return sum + (part.upperBound - part.lowerBound)
            }
            bytes += handed - min(handed, piece.hugeBytes)
        }
        return Int(bytes) / HugePagePool.pageSize
    }

    /// Checks that a range is mapped as a process says.
    ///
    /// - Parameters:
    ///   - range: the range's addresses and page size.
    ///   - file: the memory file that the range must be a shared mapping of, and the byte at which it begins there; nil
    ///     for private memory.
    ///   - isUnwatched: whether no userfaultfd may be registered.
    ///   - name: the range's name in errors: `region 3`.
    /// - Throws: ``HandedDescriptorError`` that says what is wrong, and where.
    package func require(
        _ range: PageRange,
        in file: (identity: StreamSocket.FileIdentity, offset: UInt64)?,
        isUnwatched: Bool,
        name: String
    ) throws(HandedDescriptorError) {
        let place = "\(name) (address \(range.address), \(range.byteCount) bytes)"
        var next = range.address
        let end = range.address + range.byteCount
        while next < end {
            guard let piece = pieces.first(where: { $0.addresses.contains(next) }) else {
                throw HandedDescriptorError(reason: "\(place) is not mapped at address \(next)")
            }
            let wrong: String? =
                if !piece.isUsable {
                    "cannot be read and written by its process"
                } else if isUnwatched, piece.isWatched {
                    "is registered with a userfaultfd; unregister it first, when all of its pages are present"
                } else if piece.pageSize != range.pageSize {
                    "has pages of \(piece.pageSize) bytes, not of \(range.pageSize)"
                } else if let file {
                    piece.isShared && piece.file == file.identity
                        && piece.offset &+ (next - piece.addresses.lowerBound) == file.offset &+ (next - range.address)
                        ? nil : "is not the shared mapping of its memory file"
                } else if piece.isShared {
                    "is shared memory; hand its memory file over, and name it"
                } else {
                    // Reading a private mapping of a file may wait for whoever serves the file.
                    piece.file.number == 0 ? nil : "is a private mapping of a file; hand anonymous memory over"
                }
            if let wrong { throw HandedDescriptorError(reason: "\(place), at address \(next): \(wrong)") }
            next = piece.addresses.upperBound
        }
    }
}

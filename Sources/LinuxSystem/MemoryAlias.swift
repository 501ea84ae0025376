import Glibc
public import SystemPackage

/// Memory of another process that this one has mapped too, out of the memory file behind it.
///
/// The other process can shrink the file or punch a hole into it at any time, and an access from here to a page that is
/// gone ends this process by SIGBUS. So only the kernel writes to it, which says EFAULT instead.
public final class MemoryAlias: Sendable {
    private let mapping: Mapping
    private let zeros: OwnedDescriptor

    /// Maps pages of a memory file.
    ///
    /// - Parameters:
    ///   - offset: where in the file they begin, in bytes; a multiple of their size.
    ///   - range: how many pages of which size.
    /// - Throws: ``HandedDescriptorError`` when the file does not hold these pages.
    public convenience init(
        of file: borrowing MemoryFile,
        from offset: UInt64 = 0,
        like range: PageRange
    ) throws(HandedDescriptorError) {
        try self.init(of: file.descriptor, number: 1, from: offset, like: range)
    }

    /// Maps pages of what another process says is a memory file, `number` of the descriptors that came with it.
    init(
        of file: borrowing OwnedDescriptor,
        number: Int,
        from offset: UInt64,
        like range: PageRange
    ) throws(HandedDescriptorError) {
        let name = "descriptor \(number)"
        try MemoryAlias.check(file, name)
        let pageSize = MemoryAlias.pageSize(of: file)
        guard pageSize == range.pageSize else {
            throw HandedDescriptorError(
                reason: "\(name) has pages of \(pageSize) bytes, its region pages of \(range.pageSize)"
            )
        }
        var status = stat()
        let raw = file.raw
        guard fstat(raw, &status) == 0, let size = UInt64(exactly: status.st_size),
            offset % UInt64(pageSize) == 0, offset <= size, range.byteCount <= size - offset
        else {
            throw HandedDescriptorError(
                reason: "\(name) has \(status.st_size) bytes, and its region \(range.byteCount) from byte \(offset) on"
            )
        }
        do throws(SystemError) {
            mapping = try Mapping(sharing: file, from: offset, byteCount: Int(range.byteCount))
            // A transparent huge page would bring its neighbours into the file, with nothing in them.
            if pageSize == 4096 { try mapping.advise(.noHugePages) }
            zeros = try attempt("open /dev/zero") { () throws(Errno) in
                OwnedDescriptor(try kernel(.open) { orErrno(open("/dev/zero", O_RDONLY | O_CLOEXEC)) })
            }
        } catch {
            throw HandedDescriptorError(reason: "\(name): \(error)")
        }
    }

    /// Refuses what is no memory file, by calls that reach no file system which its sender may serve itself.
    private static func check(_ file: borrowing OwnedDescriptor, _ name: String) throws(HandedDescriptorError) {
        // F_GET_SEALS, hidden behind _GNU_SOURCE, is answered for files of shared memory and of hugetlbfs only. A
        // descriptor of O_PATH stands for no open file, and most calls fail on it with EBADF.
        let seals = fcntl(file.raw, F_GETFL) & O_ACCMODE == O_RDWR ? fcntl(file.raw, 1034) : -1
        guard seals >= 0 else {
            throw HandedDescriptorError(reason: "\(name) is no memory file (memfd) that can be read and written")
        }
    }

    private static func pageSize(of file: borrowing OwnedDescriptor) -> Int {
        // st_blksize is no page of the file where shared memory may have transparent huge pages.
        var system = statvfs()
        return fstatvfs(file.raw, &system) == 0 ? Int(system.f_bsize) : 0
    }

    /// The bytes, for the kernel to write to.
    @inline(__always)
    func bytes(_ range: Range<Int>) -> UnsafeMutableRawBufferPointer {
        precondition(range.lowerBound >= 0 && range.upperBound <= mapping.byteCount, "within the mapping")
        return UnsafeMutableRawBufferPointer(start: mapping.base + range.lowerBound, count: range.count)
    }

    /// Writes zeros.
    ///
    /// - Throws: errno EFAULT if the other process has taken the memory away.
    public func zero(_ range: Range<Int>) throws(SystemError) {
        var rest = range
        while !rest.isEmpty {
            let bytes = bytes(rest)
            do throws(Errno) {
                let count = try kernel(.read, isForeign: true) {
                    orErrno(read(zeros.raw, bytes.baseAddress, bytes.count))
                }
                rest = rest.lowerBound + count..<rest.upperBound
            } catch {
                throw SystemError("write zeros to the memory of another process", error)
            }
        }
    }
}

extension Errno {
    /// Whether a call found no page where another process is to have one (EFAULT).
    public var isMemoryGone: Bool { self == .badAddress }
}

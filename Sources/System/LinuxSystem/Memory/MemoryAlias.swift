import CShims
import Glibc
package import SystemPackage

/// Memory of another process that this process has mapped too, through the memory file behind it.
///
/// The other process can shrink the file or punch a hole into it at any time. If this program touched a page that is
/// gone, SIGBUS would end it. So only the kernel writes to the mapping: its system calls report EFAULT instead.
package final class MemoryAlias: Sendable {
    private let mapping: Mapping
    private let zeros: OwnedDescriptor

    /// Maps pages of a memory file.
    ///
    /// - Parameters:
    ///   - file: a memory file whose pages have the size of the range's pages.
    ///   - offset: where the pages begin in the file, in bytes; a multiple of the page size.
    ///   - range: gives the size and the number of the pages; its address does not matter.
    /// - Throws: ``HandedDescriptorError`` if the file does not hold these pages.
    package convenience init(
        of file: borrowing MemoryFile,
        from offset: UInt64 = 0,
        like range: PageRange
    ) throws(HandedDescriptorError) {
        try self.init(of: file.descriptor, number: 1, from: offset, like: range)
    }

    /// Maps pages of a descriptor that another process says is a memory file.
    ///
    /// - Parameter number: the descriptor's position in the message that brought it, for errors.
    init(
        of file: borrowing OwnedDescriptor,
        number: Int,
        from offset: UInt64,
        like range: PageRange
    ) throws(HandedDescriptorError) {
        let name = "descriptor \(number)"
        try MemoryAlias.check(file, name, holds: range, at: offset)
        do throws(SystemError) {
            mapping = try Mapping(sharing: file, from: offset, byteCount: Int(range.byteCount))
            // A transparent huge page would bring its neighbors into the file, without their contents.
            if range.pageSize == 4096 { try mapping.advise(.noHugePages) }
            zeros = try attempt("open /dev/zero") { () throws(Errno) in
                OwnedDescriptor(try kernel(.open) { orErrno(open("/dev/zero", O_RDONLY | O_CLOEXEC)) })
            }
        } catch {
            throw HandedDescriptorError(reason: "\(name): \(error)")
        }
    }

    /// Refuses a descriptor that is not a memory file with all pages of a range.
    ///
    /// - Parameters:
    ///   - file: a descriptor that another process says is a memory file.
    ///   - name: the descriptor, for errors.
    ///   - range: gives the size and the number of the pages.
    ///   - offset: where the pages begin in the file, in bytes.
    static func check(
        _ file: borrowing OwnedDescriptor,
        _ name: String,
        holds range: PageRange,
        at offset: UInt64
    ) throws(HandedDescriptorError) {
        try checkKind(of: file, name)
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
                reason: "\(name) (\(status.st_size) bytes) cannot hold its region: "
                    + "\(range.byteCount) bytes at byte \(offset)"
            )
        }
    }

    /// Refuses a descriptor that is not a memory file, by calls that never reach a file system which the sender may
    /// serve itself.
    private static func checkKind(of file: borrowing OwnedDescriptor, _ name: String) throws(HandedDescriptorError) {
        // F_GET_SEALS (1034, hidden behind _GNU_SOURCE) succeeds only for files of shared memory and of hugetlbfs. A
        // descriptor opened with O_PATH has no open file: most calls on it fail with EBADF, which would trap.
        let seals = fcntl(file.raw, F_GETFL) & O_ACCMODE == O_RDWR ? fcntl(file.raw, 1034) : -1
        guard seals >= 0 else {
            throw HandedDescriptorError(reason: "\(name) is no memory file (memfd) that can be read and written")
        }
    }

    private static func pageSize(of file: borrowing OwnedDescriptor) -> Int {
        // Not st_blksize, which is not the file's page size if shared memory may have transparent huge pages.
        var system = statvfs()
        return fstatvfs(file.raw, &system) == 0 ? Int(system.f_bsize) : 0
    }

    /// The bytes of a range, for the kernel to write to.
    @inline(__always)
    func bytes(_ range: Range<Int>) -> UnsafeMutableRawBufferPointer {
        precondition(range.lowerBound >= 0 && range.upperBound <= mapping.byteCount, "within the mapping")
        return UnsafeMutableRawBufferPointer(start: mapping.base + range.lowerBound, count: range.count)
    }

    /// Copies bytes of this process to a range.
    ///
    /// - Parameters:
    ///   - source: as many bytes as the range has.
    ///   - range: the part of the mapping to fill, in bytes from its beginning.
    /// - Throws: a ``SystemError`` with errno EFAULT if the other process has taken the memory away.
    package func write(_ source: UnsafeRawPointer, to range: Range<Int>) throws(SystemError) {
        var rest = range
        while !rest.isEmpty {
            let bytes = bytes(rest)
            let begin = UInt64(UInt(bitPattern: source + (rest.lowerBound - range.lowerBound)))
            do throws(Errno) {
                // A copy by this program would raise SIGBUS if the memory were gone.
                let count = try kernel(.processVMReadv, isForeign: true) {
                    shim_read_process(getpid(), begin, bytes.baseAddress, bytes.count)
                }
                rest = rest.lowerBound + count..<rest.upperBound
            } catch {
                throw SystemError("write to the memory of another process", error)
            }
        }
    }

    /// Writes zeros to a range.
    ///
    /// - Throws: a ``SystemError`` with errno EFAULT if the other process has taken the memory away.
    package func zero(_ range: Range<Int>) throws(SystemError) {
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
    /// Whether a call found a page missing that another process should have (EFAULT).
    package var isMemoryGone: Bool { self == .badAddress }
}

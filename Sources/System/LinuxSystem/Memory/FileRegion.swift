import CShims
import Glibc
import SystemPackage

/// A region of a memory file that another process fills.
///
/// The region is read by pread(2), and not through a mapping. The process can shrink the file at any time: a read then
/// ends early, whereas a touch of the mapping would raise SIGBUS. A read also leaves the file's holes as they are,
/// whereas a touch would fill them with pages of zeros.
///
/// A hole inside the file reads as zeros. A hole that the process has punched cannot be told from a page that it has
/// never written, and neither can a part that it has cut off and added again.
package final class FileRegion: Sendable {
    /// Bytes in a page.
    package let pageSize: Int
    /// Pages in the region.
    package let pageCount: Int
    private let file: OwnedDescriptor
    private let offset: Int

    /// Makes a region of a memory file.
    ///
    /// - Parameters:
    ///   - file: a memory file whose pages have the size of the range's pages.
    ///   - offset: where the region begins in the file, in bytes; a multiple of the page size.
    ///   - range: gives the size and the number of the pages; its address does not matter.
    /// - Throws: ``HandedDescriptorError`` if the file does not hold these pages.
    package convenience init(
        of file: borrowing MemoryFile,
        from offset: UInt64 = 0,
        like range: PageRange
    ) throws(HandedDescriptorError) {
        try self.init(of: file.descriptor, number: 1, from: offset, like: range)
    }

    /// Makes a region of a descriptor that another process says is a memory file.
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
        pageSize = range.pageSize
        pageCount = range.pageCount
        self.offset = Int(offset)
        do throws(Errno) {
            self.file = try file.duplicate()
        } catch {
            throw HandedDescriptorError(reason: "\(name): cannot copy the descriptor: \(error); raise `ulimit -n`")
        }
    }

    /// Reads bytes of the region.
    ///
    /// - Returns: the bytes read; fewer than the buffer holds if a later byte cannot be read.
    /// - Throws: why not even `least` bytes can be read.
    func read(
        from position: Int,
        into buffer: UnsafeMutableRawBufferPointer,
        atLeast least: Int
    ) throws(SystemError) -> Int {
        let begin = offset + position
        var (done, failure) = (0, Errno.noData)
        do throws(Errno) {
            while done < buffer.count {
                let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
                let count = try kernel(.pread) {
                    orErrno(pread(file.raw, rest.baseAddress, rest.count, off_t(begin + done)))
                }
                if count == 0 { break }
                done += count
            }
            // The kernel may clear the end of a file that is being shrunk, but only after it has changed the size.
            var status = stat()
            _ = try kernel(.fstat) { orErrno(fstat(file.raw, &status)) }
            done = min(done, max(0, status.st_size - begin))
        } catch {
            failure = error
        }
        guard done >= least else {
            throw SystemError(
                "read \(buffer.count) bytes at byte \(begin) of a memory file of another process",
                failure,
                advice: failure == .noData ? "the file was shrunk" : nil
            )
        }
        return done
    }

    /// Returns the memory of pages to the kernel: the pages read as zeros from now on.
    func discard(_ pages: Range<Int>) throws(SystemError) {
        let (begin, byteCount) = (offset + pages.lowerBound * pageSize, pages.count * pageSize)
        _ = try attempt("return \(byteCount) bytes of a memory file to the kernel") { () throws(Errno) in
            try kernel(.fallocate) { shim_punch_hole(file.raw, begin, byteCount) }
        }
    }
}

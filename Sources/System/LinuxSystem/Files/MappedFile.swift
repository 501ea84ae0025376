import CShims
import Glibc
import Synchronization
import SystemPackage

/// A regular file that is read through a mapping, and whose content must not change meanwhile.
///
/// Bytes read from the mapping are valid only if ``requireUnchanged()`` returns afterwards. The check relies on the
/// kernel, which sets a file's modification time and its change time before newly written bytes can be read. Both also
/// change without a write, and ``renew(_:)`` then finds out what has happened.
package final class MappedFile: Sendable {
    /// Bytes of a page, the unit in which holes are recorded.
    private static let pageSize = 4096

    /// The path by which the file was opened.
    package let path: String
    let descriptor: OwnedDescriptor
    private let opened: Version
    /// The times of the latest version whose content is known to be the one that was opened.
    ///
    /// Written while ``renewing`` is locked. Relaxed, since a thread that reads an older time, or one of each version,
    /// finds no version of the file equal to them: no two versions have the same change time.
    let modified: Atomic<Int64>
    let changed: Atomic<Int64>
    let renewing = Mutex<Void>(())
    /// Nil if the kernel cannot tell whether somebody has written to the file.
    let witness: WriterWitness?
    private let mapping: Mapping
    let tear: Tear
    /// The pages that may hold something other than zeros, because they lie in no hole.
    private let data: PageBitmap

    /// What the kernel says of a file; while the version is the same, so is the content.
    package struct Version: Hashable, Sendable {
        /// The number of the device that the file lies on.
        package let device: UInt64
        /// The file's number on its device.
        package let inode: UInt64
        /// Bytes of the file.
        package let byteCount: Int
        /// When the content was last modified, in nanoseconds since 1970-01-01 00:00 UTC.
        package fileprivate(set) var modified: Int64
        /// When the content or the attributes were last changed, in nanoseconds since 1970-01-01 00:00 UTC.
        package fileprivate(set) var changed: Int64

        init(of descriptor: borrowing OwnedDescriptor) throws(Errno) {
            let raw = descriptor.raw
            var status = stat()
            _ = try kernel(.fstat) { orErrno(fstat(raw, &status)) }
            device = UInt64(status.st_dev)
            inode = UInt64(status.st_ino)
            byteCount = status.st_size
            modified = Version.nanoseconds(status.st_mtim)
            changed = Version.nanoseconds(status.st_ctim)
        }

        /// After the year 2262 the value wraps around, and still distinguishes one time from another.
        private static func nanoseconds(_ time: timespec) -> Int64 {
            Int64(time.tv_sec) &* 1_000_000_000 &+ Int64(time.tv_nsec)
        }
    }

    /// Opens a file and finds its holes, without reading any of its bytes.
    ///
    /// - Parameter path: a regular file of at least 4096 bytes.
    package init(_ path: String) throws(SystemError) {
        let file = try RegularFile(path, to: "serve", access: O_RDONLY)
        descriptor = file.descriptor
        // Before the version is read, so that the witness knows of everybody who changes it.
        witness = WriterWitness(of: descriptor)
        do throws(Errno) {
            opened = try Version(of: descriptor)
            MappedFile.waitForNextTick()
        } catch {
            throw SystemError("inspect \(path)", error)
        }
        guard opened.byteCount >= MappedFile.pageSize else {
            throw SystemError(
                "serve \(path)",
                .invalidArgument,
                advice: "it has no whole page of 4096 bytes; give the file of a guest's memory"
            )
        }
        self.path = path
        modified = Atomic(opened.modified)
        changed = Atomic(opened.changed)
        mapping = try Mapping(
            reading: descriptor,
            byteCount: opened.byteCount / MappedFile.pageSize * MappedFile.pageSize
        )
        try mapping.advise(.random)
        data = try MappedFile.findData(in: descriptor, mapping.byteCount, path)
        tear = Tear(base: mapping.base, byteCount: mapping.byteCount)
        BusFaults.add(tear)
        // Without this advice, pages that nobody asked for are read through the descriptor.
        _ = try? kernel(.posixFadvise) { -posix_fadvise(descriptor.raw, 0, 0, POSIX_FADV_RANDOM) }
    }

    deinit {
        BusFaults.remove(tear)
    }

    /// Bytes of the file.
    package var byteCount: Int { opened.byteCount }

    /// Whether the file's mode lets every user of this host read it.
    package var isReadableByAll: Bool {
        var status = stat()
        return fstat(descriptor.raw, &status) == 0 && status.st_mode & S_IROTH != 0
    }

    /// The latest version of the file whose content is known to be the one that was opened.
    package var version: Version {
        renewing.withLock { _ in
            var version = opened
            version.modified = modified.load(ordering: .relaxed)
            version.changed = changed.load(ordering: .relaxed)
            return version
        }
    }

    /// The address of a byte of the file's whole pages, for reading only.
    @inline(__always)
    package func address(of offset: Int) -> UnsafeMutableRawPointer { mapping.base + offset }

    /// Whether a part of the file lies in a hole, and so holds only zeros.
    ///
    /// - Parameters:
    ///   - offset: where the part begins, a multiple of 4096.
    ///   - byteCount: bytes in the part, a multiple of 4096.
    @inline(__always)
    package func isHole(at offset: Int, byteCount: Int) -> Bool {
        data.isClear(offset / MappedFile.pageSize..<(offset + byteCount) / MappedFile.pageSize)
    }

    /// Asks the kernel to start reading a part of the file from its disk, except what is in memory already or in a
    /// hole.
    ///
    /// - Parameters:
    ///   - offset: where the part begins, a multiple of 4096.
    ///   - byteCount: bytes in the part, a multiple of 4096.
    package func readAhead(at offset: Int, byteCount: Int) {
        let size = MappedFile.pageSize
        var page = offset / size
        let end = page + byteCount / size
        while page < end {
            let begin = page
            while page < end, data.contains(page) { page += 1 }
            if page > begin {
                // Without this advice, the part is read page by page.
                _ = try? kernel(.posixFadvise) {
                    -posix_fadvise(descriptor.raw, begin * size, (page - begin) * size, POSIX_FADV_WILLNEED)
                }
            }
            page += 1
        }
    }

    /// Throws unless the file still has the version whose content is known; everything read of it so far is then valid.
    @inline(__always)
    package func requireUnchanged() throws(FileChanged) {
        // A failed call is repeated by `change`, which reports the error.
        guard let now = try? Version(of: descriptor), isKnown(now) else { throw change() }
    }

    @inline(__always)
    func isKnown(_ now: Version) -> Bool {
        now.byteCount == opened.byteCount && now.changed == changed.load(ordering: .relaxed)
            && now.modified == modified.load(ordering: .relaxed) && !tear.isTorn.load(ordering: .sequentiallyConsistent)
    }

    /// Bytes of the file's whole pages.
    package var wholePagesByteCount: Int { mapping.byteCount }

    /// Reads bytes of the file, without mapping them.
    ///
    /// - Returns: the number of bytes read, which is less than asked for only at the end of the file.
    package func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        var count = 0
        do throws(Errno) {
            while count < buffer.count {
                let more = try kernel(.pread) {
                    orErrno(
                        pread(
                            descriptor.raw,
                            buffer.baseAddress.map { $0 + count },
                            buffer.count - count,
                            offset + count
                        )
                    )
                }
                if more == 0 { break }
                count += more
            }
        } catch {
            throw SystemError("read \(path)", error)
        }
        return count
    }

    /// Finds the pages that lie in no hole of the file now.
    package func findData() throws(SystemError) -> PageBitmap {
        try MappedFile.findData(in: descriptor, mapping.byteCount, path)
    }

    private static func findData(
        in descriptor: borrowing OwnedDescriptor,
        _ byteCount: Int,
        _ path: String
    ) throws(SystemError) -> PageBitmap {
        // SEEK_DATA and SEEK_HOLE are hidden behind _GNU_SOURCE.
        let (seekData, seekHole): (CInt, CInt) = (3, 4)
        let raw = descriptor.raw
        let pages = try PageBitmap(pageCount: byteCount / pageSize)
        var offset = 0
        do throws(Errno) {
            while offset < byteCount {
                let begin = try kernel(.lseek) { orErrno(lseek(raw, offset, seekData)) }
                // The end of a file counts as a hole, also if the file shrinks meanwhile.
                offset = max(begin + 1, try kernel(.lseek) { orErrno(lseek(raw, begin, seekHole)) })
                let end = min(pages.pageCount, (offset + pageSize - 1) / pageSize)
                if begin / pageSize < end { _ = pages.insert(run: begin / pageSize..<end) }
            }
        } catch .noSuchAddressOrDevice {
            // No data lies after this offset.
        } catch {
            throw SystemError("find the holes of \(path)", error)
        }
        return pages
    }
}

/// Resolves faults on pages of a mapped file that cannot be read: the file was truncated, or its disk has failed.
final class Tear: BusFaultResolver {
    let isTorn = Atomic<Bool>(false)
    private let base: UInt64
    private let byteCount: Int

    init(base: UnsafeMutableRawPointer, byteCount: Int) {
        self.base = UInt64(UInt(bitPattern: base))
        self.byteCount = byteCount
    }

    func owns(_ address: UInt64) -> Bool { address >= base && address - base < UInt64(byteCount) }

    /// Replaces the whole mapping by zeros, so that the reader continues; the check then tells the reader not to use
    /// them.
    func resolve(_ address: UInt64) {
        // Set before the zeros exist, so that a reader that has read one sees the flag afterwards.
        isTorn.store(true, ordering: .sequentiallyConsistent)
        let place = UnsafeMutableRawPointer(bitPattern: UInt(base))
        let flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        let mapped = mmap(place, byteCount, PROT_READ, flags, -1, 0)
        precondition(mapped == place, "a mapping can be replaced by another of the same size")
    }
}

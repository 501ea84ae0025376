import CShims
import Glibc
import Synchronization
import SystemPackage

/// A regular file that is read through a mapping, and that nobody may change meanwhile.
///
/// What is read of it counts only if ``requireUnchanged()`` returns after the reading: the time of a file is set before
/// what is written into it can be read.
public final class MappedFile: Sendable {
    /// Bytes of the pages that holes are counted in.
    private static let pageSize = 4096

    /// Where it was opened.
    public let path: String
    private let descriptor: OwnedDescriptor
    private let opened: Version
    private let mapping: Mapping
    private let tear: Tear
    /// The pages that may hold anything but zeros: those of no hole.
    private let data: PageBitmap

    /// What tells one content of the file from another.
    private struct Version: Hashable {
        let byteCount: Int
        let modified: Int64

        init(of descriptor: borrowing OwnedDescriptor) throws(Errno) {
            let raw = descriptor.raw
            var status = stat()
            _ = try kernel(.fstat) { orErrno(fstat(raw, &status)) }
            byteCount = status.st_size
            // Beyond the year 2262 it wraps around, and still tells one time from another.
            modified = Int64(status.st_mtim.tv_sec) &* 1_000_000_000 &+ Int64(status.st_mtim.tv_nsec)
        }
    }

    /// Opens a file and finds its holes, without reading any of it.
    ///
    /// - Parameter path: a regular file of at least 4096 bytes.
    public init(_ path: String) throws(SystemError) {
        let file = try RegularFile(path, to: "serve", access: O_RDONLY)
        descriptor = file.descriptor
        do throws(Errno) {
            opened = try Version(of: descriptor)
            // Before Linux 6.13 two changes in the same tick of the clock, 10 ms at most, leave the same time.
            MonotonicClock.sleep(nanoseconds: 20_000_000)
        } catch {
            throw SystemError("look at \(path)", error)
        }
        guard opened.byteCount >= MappedFile.pageSize else {
            throw SystemError("serve \(path)", .invalidArgument, advice: "it has no whole page of 4096 bytes")
        }
        self.path = path
        mapping = try Mapping(
            reading: descriptor,
            byteCount: opened.byteCount / MappedFile.pageSize * MappedFile.pageSize
        )
        try mapping.advise(.random)
        data = try MappedFile.findData(in: descriptor, mapping.byteCount, path)
        tear = Tear(base: mapping.base, byteCount: mapping.byteCount)
        BusFaults.add(tear)
    }

    deinit {
        BusFaults.remove(tear)
    }

    /// Bytes of the file.
    public var byteCount: Int { opened.byteCount }

    /// Whether every user of this host may read it.
    public var isReadableByAll: Bool {
        var status = stat()
        return fstat(descriptor.raw, &status) == 0 && status.st_mode & S_IROTH != 0
    }

    /// When it was last modified, in nanoseconds since 1970-01-01 00:00 UTC.
    public var modified: Int64 { opened.modified }

    /// Where a byte of a whole page lies in memory. It may only be read.
    @inline(__always)
    public func address(of offset: Int) -> UnsafeMutableRawPointer { mapping.base + offset }

    /// Whether a part of the file lies in a hole, and so holds only zeros.
    ///
    /// - Parameters:
    ///   - offset: where it begins, a multiple of 4096.
    ///   - byteCount: a multiple of 4096.
    @inline(__always)
    public func isHole(at offset: Int, byteCount: Int) -> Bool {
        data.isClear(offset / MappedFile.pageSize..<(offset + byteCount) / MappedFile.pageSize)
    }

    /// Has the kernel begin to read a part of the file from its disk, as far as it is neither in memory nor in a hole.
    ///
    /// - Parameters:
    ///   - offset: where it begins, a multiple of 4096.
    ///   - byteCount: a multiple of 4096.
    public func readAhead(at offset: Int, byteCount: Int) {
        let size = MappedFile.pageSize
        var page = offset / size
        let end = page + byteCount / size
        while page < end {
            let begin = page
            while page < end, data.contains(page) { page += 1 }
            // Advice: without it the part is read page by page.
            if page > begin {
                _ = try? kernel(.posixFadvise) {
                    -posix_fadvise(descriptor.raw, begin * size, (page - begin) * size, POSIX_FADV_WILLNEED)
                }
            }
            page += 1
        }
    }

    /// Returns if the file is still what was opened, and so was all that has been read of it.
    @inline(__always)
    public func requireUnchanged() throws(FileChanged) {
        guard let version = try? Version(of: descriptor), version == opened,
            !tear.isTorn.load(ordering: .sequentiallyConsistent)
        else { throw change() }
    }

    /// What has happened to a file that is known to be another; out of the way of the good path.
    @inline(never)
    private func change() -> FileChanged {
        let told: String
        do throws(Errno) {
            let now = try Version(of: descriptor)
            if now.byteCount != byteCount {
                told = "has changed its size from \(byteCount) to \(now.byteCount) bytes"
            } else if now.modified != modified {
                told = "was modified"
            } else {
                told = "cannot be read any more, see the kernel's log"
            }
        } catch {
            told = "cannot be looked at any more: \(error)"
        }
        return FileChanged(description: "\(path) \(told); serve a file that nobody changes")
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
                // A file that shrinks meanwhile has a hole at its end too.
                offset = max(begin + 1, try kernel(.lseek) { orErrno(lseek(raw, begin, seekHole)) })
                let end = min(pages.pageCount, (offset + pageSize - 1) / pageSize)
                if begin / pageSize < end { _ = pages.insert(run: begin / pageSize..<end) }
            }
        } catch .noSuchAddressOrDevice {
            // No data behind the place.
        } catch {
            throw SystemError("find the holes of \(path)", error)
        }
        return pages
    }
}

/// Resolves the faults of a file's mapping whose page cannot be had: the file was truncated, or its disk has failed.
private final class Tear: BusFaultResolver {
    let isTorn = Atomic<Bool>(false)
    private let base: UInt64
    private let byteCount: Int

    init(base: UnsafeMutableRawPointer, byteCount: Int) {
        self.base = UInt64(UInt(bitPattern: base))
        self.byteCount = byteCount
    }

    func owns(_ address: UInt64) -> Bool { address >= base && address - base < UInt64(byteCount) }

    /// Lets the reader go on, with zeros that it will learn not to use.
    func resolve(_ address: UInt64) {
        // Before there are zeros: whoever reads one sees this after it.
        isTorn.store(true, ordering: .sequentiallyConsistent)
        let place = UnsafeMutableRawPointer(bitPattern: UInt(base))
        let flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        let mapped = mmap(place, byteCount, PROT_READ, flags, -1, 0)
        precondition(mapped == place, "a mapping can be replaced by another of the same size")
    }
}

/// A file that is not what was opened.
public struct FileChanged: Error, Sendable, CustomStringConvertible {
    /// What has happened to it, in one line.
    public let description: String
}

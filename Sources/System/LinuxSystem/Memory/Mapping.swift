import CShims
import Glibc
import SystemPackage

/// A private or shared memory mapping that unmaps itself.
///
/// `@unchecked Sendable`: the range stays mapped at the same address for the value's whole life. Those who share the
/// memory agree among themselves on who reads and writes what.
package struct Mapping: ~Copyable, @unchecked Sendable {
    /// The address of the first byte, aligned to a page.
    package let base: UnsafeMutableRawPointer
    /// Bytes mapped, a whole number of pages.
    package let byteCount: Int

    /// Maps private anonymous memory, which reads as zeros and takes no memory before it is touched.
    ///
    /// - Parameter byteCount: a multiple of the page size, in bytes.
    package init(anonymousBytes byteCount: Int) throws(SystemError) {
        self = try Mapping.map(byteCount, flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, descriptor: -1)
    }

    /// Maps private anonymous memory of huge pages from ``HugePagePool``, which reads as zeros.
    ///
    /// The mapping reserves its pages. If the pool has too few, this initializer throws, instead of a later access
    /// failing.
    package init(hugePages pageCount: Int) throws(SystemError) {
        // The flags hold the logarithm of the page size; glibc's headers lack MAP_HUGE_2MB.
        let size = CInt(HugePagePool.pageSize.trailingZeroBitCount) << MAP_HUGE_SHIFT
        self = try Mapping.map(
            pageCount * HugePagePool.pageSize,
            flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | size,
            descriptor: -1,
            what: "\(pageCount) huge pages of 2 MiB",
            advice: HugePagePool.shortage(for: pageCount)
        )
    }

    /// Maps addresses that can be neither read nor written, and that take no memory.
    init(unreadableBytes byteCount: Int) throws(SystemError) {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        self = try Mapping.map(byteCount, flags: flags, descriptor: -1, protection: PROT_NONE)
    }

    /// Maps a whole memory file, shared with its other mappings.
    package init(sharing file: borrowing MemoryFile) throws(SystemError) {
        self = try Mapping.map(file.byteCount, flags: MAP_SHARED, descriptor: file.descriptor.raw)
    }

    /// Maps a part of a memory file, shared with its other mappings.
    init(sharing descriptor: borrowing OwnedDescriptor, from offset: UInt64, byteCount: Int) throws(SystemError) {
        self = try Mapping.map(byteCount, flags: MAP_SHARED, descriptor: descriptor.raw, offset: off_t(offset))
    }

    /// Maps a whole existing file, shared with its other mappings.
    ///
    /// Bytes that are written outlive the process.
    ///
    /// - Parameter path: a regular file whose size is a multiple of 4096 bytes, and not 0.
    package init(sharingFileAt path: String) throws(SystemError) {
        let file = try RegularFile(path, to: "map")
        guard file.byteCount > 0, file.byteCount % 4096 == 0 else {
            throw SystemError("map \(path)", .invalidArgument, advice: "give a regular file of whole pages")
        }
        self = try Mapping.map(file.byteCount, flags: MAP_SHARED, descriptor: file.descriptor.raw)
    }

    /// Maps the beginning of a file for reading, shared with its other mappings.
    init(reading file: borrowing OwnedDescriptor, byteCount: Int) throws(SystemError) {
        self = try Mapping.map(byteCount, flags: MAP_SHARED, descriptor: file.raw, protection: PROT_READ)
    }

    /// Maps memory that the kernel shares with this process through a descriptor, from its beginning.
    init(sharing descriptor: borrowing OwnedDescriptor, byteCount: Int) throws(SystemError) {
        self = try Mapping.map(byteCount, flags: MAP_SHARED, descriptor: descriptor.raw)
    }

    private init(base: UnsafeMutableRawPointer, byteCount: Int) {
        self.base = base
        self.byteCount = byteCount
    }

    private static func map(
        _ byteCount: Int,
        flags: CInt,
        descriptor: CInt,
        offset: off_t = 0,
        protection: CInt = PROT_READ | PROT_WRITE,
        what: @autoclosure () -> String? = nil,
        advice: @autoclosure () -> String? = nil
    ) throws(SystemError) -> Mapping {
        // mmap(2) returns addresses below 2^47 in user space, so a negative value is the error.
        let address = try attempt(
            "map \(what() ?? "\(byteCount) bytes of memory")",
            advice: advice() ?? "free memory or ask for less"
        ) { () throws(Errno) in
            try kernel(.mmap) {
                let address = mmap(nil, byteCount, protection, flags, descriptor, offset)
                return orErrno(Int(bitPattern: address))
            }
        }
        guard let base = UnsafeMutableRawPointer(bitPattern: address) else {
            preconditionFailure("mmap answered address 0 without MAP_FIXED")
        }
        let mapping = Mapping(base: base, byteCount: byteCount)
        // Any mapping may hold a guest's memory, and a user who may read a core dump may not be one who may read the
        // guest.
        try mapping.advise(.dontDump)
        return mapping
    }

    deinit {
        let result = munmap(base, byteCount)
        precondition(result == 0, "munmap of our own mapping failed")
    }

    /// Advice to the kernel about a whole mapping.
    package enum Advice: Sendable {
        /// Transparent huge pages stay off: the kernel must not collapse a range that is being filled with 4 KiB pages.
        case noHugePages
        /// Transparent huge pages may be used.
        case hugePages
        /// The contents are dropped; the next read sees zeros.
        case dontNeed
        /// All pages are mapped as if they had been read; anonymous memory gets the kernel's page of zeros.
        case populate
        /// Pages are touched in no order, so the kernel reads none ahead of its first touch.
        case random
        /// Core dumps leave the mapping out.
        case dontDump

        fileprivate var raw: CInt {
            switch self {
            case .noHugePages: MADV_NOHUGEPAGE
            case .hugePages: MADV_HUGEPAGE
            case .dontNeed: MADV_DONTNEED
            // MADV_POPULATE_READ, absent from older headers.
            case .populate: 22
            case .random: MADV_RANDOM
            case .dontDump: MADV_DONTDUMP
            }
        }
    }

    /// Collapses one piece of memory into a transparent huge page (MADV_COLLAPSE).
    ///
    /// The pages stay as they are if the kernel is using one of them at this moment.
    ///
    /// - Parameter offset: where the piece begins, in bytes from ``base``; its address is a multiple of its size.
    func collapse(at offset: Int) throws(SystemError) {
        // MADV_COLLAPSE, since Linux 6.1; absent from older headers.
        let collapse: CInt = 25
        do throws(Errno) {
            _ = try kernel(.madvise) { orErrno(madvise(base + offset, TransparentHugePages.pageSize, collapse)) }
        } catch .resourceTemporarilyUnavailable {
            return
        } catch {
            throw SystemError("make a transparent huge page", error)
        }
    }

    /// Gives the kernel advice about the whole mapping.
    package func advise(_ advice: Advice) throws(SystemError) {
        _ = try attempt("advise the kernel (\(advice)) about \(byteCount) bytes of memory") { () throws(Errno) in
            try kernel(.madvise) { orErrno(madvise(base, byteCount, advice.raw)) }
        }
    }
}

/// A file that lives only in memory (memfd), close-on-exec.
package struct MemoryFile: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor
    /// The file's size in bytes.
    package let byteCount: Int

    /// Creates a file of zeros.
    ///
    /// - Parameters:
    ///   - name: shown in /proc/PID/maps as `memfd:name`.
    ///   - byteCount: a multiple of the page size.
    ///   - pageSize: 4096, or that of ``HugePagePool``, whose pages are reserved when the file is mapped.
    package init(name: String, byteCount: Int, pageSize: Int = 4096) throws(SystemError) {
        let log2HugePage = pageSize == HugePagePool.pageSize ? UInt32(pageSize.trailingZeroBitCount) : 0
        let descriptor = try attempt("make a memory file") { () throws(Errno) in
            OwnedDescriptor(try kernel(.memfdCreate) { shim_memfd_create(name, log2HugePage) })
        }
        let raw = descriptor.raw
        _ = try attempt("size a memory file to \(byteCount) bytes") { () throws(Errno) in
            try kernel(.ftruncate) { orErrno(ftruncate(raw, byteCount)) }
        }
        self.descriptor = descriptor
        self.byteCount = byteCount
    }

    /// Writes bytes at the beginning of the file.
    package func write(_ bytes: [UInt8]) throws(SystemError) {
        let raw = descriptor.raw
        var offset = 0
        while offset < bytes.count {
            offset += try attempt("write \(bytes.count) bytes to a memory file") { () throws(Errno) in
                try kernel(.pwrite) {
                    bytes[offset...].withUnsafeBytes { orErrno(pwrite(raw, $0.baseAddress, $0.count, off_t(offset))) }
                }
            }
        }
    }

    /// A path by which another process can open the file, if it may trace this one, such as a process of the same user.
    package var path: String { "/proc/\(getpid())/fd/\(descriptor.raw)" }

    /// Reads all bytes of the file, also those that another process has added at its end.
    package func contents() throws(SystemError) -> [UInt8] {
        let raw = descriptor.raw
        return try attempt("read a memory file") { () throws(Errno) in
            var bytes = [UInt8](repeating: 0, count: Int(try kernel(.lseek) { orErrno(lseek(raw, 0, SEEK_END)) }))
            var offset = 0
            while offset < bytes.count {
                let count = try kernel(.pread) {
                    bytes[offset...].withUnsafeMutableBytes {
                        orErrno(pread(raw, $0.baseAddress, $0.count, off_t(offset)))
                    }
                }
                guard count > 0 else { throw .ioError }
                offset += count
            }
            return bytes
        }
    }

    /// Allocates the memory of the whole file, so that later writes neither wait for memory nor fail for want of it.
    package func reserve() throws(SystemError) {
        let raw = descriptor.raw
        _ = try attempt("reserve \(byteCount >> 20) MiB for a memory file", advice: "free memory") { () throws(Errno) in
            try kernel(.posixFallocate) { -posix_fallocate(raw, 0, off_t(byteCount)) }
        }
    }

    /// Locks the file for all copies of this descriptor, which other processes may have inherited (flock).
    ///
    /// - Returns: false if another opening of the file has the lock.
    package func lock() throws(SystemError) -> Bool {
        let raw = descriptor.raw
        do throws(Errno) {
            _ = try kernel(.flock) { orErrno(flock(raw, LOCK_EX | LOCK_NB)) }
            return true
        } catch .resourceTemporarilyUnavailable {
            return false
        } catch {
            throw SystemError("lock a memory file", error)
        }
    }

    /// Takes over a memory file that another process has created.
    init(adopting descriptor: consuming OwnedDescriptor) throws(SystemError) {
        let raw = descriptor.raw
        byteCount = try attempt("read the size of a memory file") { () throws(Errno) in
            Int(try kernel(.lseek) { orErrno(lseek(raw, 0, SEEK_END)) })
        }
        self.descriptor = descriptor
    }
}

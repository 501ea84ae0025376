import CShims
import Glibc
import SystemPackage

/// A private or shared memory mapping that unmaps itself.
///
/// `@unchecked Sendable`: the range stays mapped at the same address for the value's whole life; what is read and
/// written in it is the business of those who share it.
public struct Mapping: ~Copyable, @unchecked Sendable {
    /// Where the mapping begins; aligned to a page.
    public let base: UnsafeMutableRawPointer
    /// Bytes mapped, whole pages.
    public let byteCount: Int

    /// Maps private anonymous memory, which reads as zeros and is not populated.
    ///
    /// - Parameter byteCount: a multiple of the page size, in bytes.
    public init(anonymousBytes byteCount: Int) throws(SystemError) {
        self = try Mapping.map(byteCount, flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, descriptor: -1)
    }

    /// Maps private anonymous memory of huge pages of ``HugePagePool``, which reads as zeros and is not populated.
    ///
    /// Its pages are reserved: where the pool has not enough of them it fails here, and not when they are touched.
    public init(hugePages pageCount: Int) throws(SystemError) {
        // The size's logarithm stands in the flags; MAP_HUGE_2MB is not in glibc's headers.
        let size = CInt(HugePagePool.pageSize.trailingZeroBitCount) << MAP_HUGE_SHIFT
        self = try Mapping.map(
            pageCount * HugePagePool.pageSize,
            flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | size,
            descriptor: -1,
            what: "\(pageCount) huge pages of 2 MiB",
            advice: HugePagePool.shortage(for: pageCount)
        )
    }

    /// Maps addresses that nobody can read or write, and that take no memory.
    init(unreadableBytes byteCount: Int) throws(SystemError) {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        self = try Mapping.map(byteCount, flags: flags, descriptor: -1, protection: PROT_NONE)
    }

    /// Maps a memory file from its beginning, shared with whoever else maps it.
    public init(sharing file: borrowing MemoryFile) throws(SystemError) {
        self = try Mapping.map(file.byteCount, flags: MAP_SHARED, descriptor: file.descriptor.raw)
    }

    /// Maps a part of a memory file, shared with whoever else maps it.
    init(sharing descriptor: borrowing OwnedDescriptor, from offset: UInt64, byteCount: Int) throws(SystemError) {
        self = try Mapping.map(byteCount, flags: MAP_SHARED, descriptor: descriptor.raw, offset: off_t(offset))
    }

    /// Maps an existing file from its beginning, shared with whoever else maps it: what is written outlives the process.
    ///
    /// - Parameter path: a regular file whose size is a multiple of the page size, and not 0.
    public init(sharingFileAt path: String) throws(SystemError) {
        let file = try RegularFile(path, to: "map")
        guard file.byteCount > 0, file.byteCount % 4096 == 0 else {
            throw SystemError("map \(path)", .invalidArgument, advice: "give a regular file of whole pages")
        }
        self = try Mapping.map(file.byteCount, flags: MAP_SHARED, descriptor: file.descriptor.raw)
    }

    /// Maps the beginning of a file to be read, shared with whoever else maps it.
    init(reading file: borrowing OwnedDescriptor, byteCount: Int) throws(SystemError) {
        self = try Mapping.map(byteCount, flags: MAP_SHARED, descriptor: file.raw, protection: PROT_READ)
    }

    /// Maps what the kernel shares with this process through a descriptor, from its beginning.
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
        // mmap's results are below 2^47 in user space, so a negative value is the error.
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
        // Whatever is mapped may be a guest's memory, and who may read a core dump is not who may read a guest.
        try mapping.advise(.dontDump)
        return mapping
    }

    deinit {
        let result = munmap(base, byteCount)
        precondition(result == 0, "munmap of our own mapping failed")
    }

    /// Advice to the kernel about the whole mapping.
    public enum Advice: Sendable {
        /// Transparent huge pages stay off: a range filled by 4 KiB pages must not be collapsed half way.
        case noHugePages
        /// Transparent huge pages may be used.
        case hugePages
        /// The contents are dropped; the next read sees zeros.
        case dontNeed
        /// All pages are mapped, as if they had been read: of anonymous memory the kernel's page of zeros.
        case populate
        /// Pages are touched in no order: none is read ahead of its first touch.
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

    /// Makes the pages of one piece of memory a transparent huge page. It stays as it is if a page of it is in use by the
    /// kernel at this moment.
    ///
    /// - Parameter offset: where the piece begins, in bytes from ``base``; its address is a multiple of its size.
    func collapse(at offset: Int) throws(SystemError) {
        // Since Linux 6.1; absent from older headers.
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
    public func advise(_ advice: Advice) throws(SystemError) {
        _ = try attempt("advise the kernel (\(advice)) about \(byteCount) bytes of memory") { () throws(Errno) in
            try kernel(.madvise) { orErrno(madvise(base, byteCount, advice.raw)) }
        }
    }
}

/// A file that lives in memory only (memfd), close-on-exec.
public struct MemoryFile: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor
    /// The file's size in bytes.
    public let byteCount: Int

    /// Makes a file of zeros.
    ///
    /// - Parameters:
    ///   - name: shown in /proc/PID/maps as `memfd:name`.
    ///   - byteCount: a multiple of the page size.
    ///   - pageSize: 4096, or that of ``HugePagePool``, whose pages are reserved when the file is mapped.
    public init(name: String, byteCount: Int, pageSize: Int = 4096) throws(SystemError) {
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

    /// Writes bytes from its beginning on.
    public func write(_ bytes: [UInt8]) throws(SystemError) {
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

    /// Where another process can open it that may trace this one, such as one of the same user.
    public var path: String { "/proc/\(getpid())/fd/\(descriptor.raw)" }

    /// All bytes of it, also of one that others have made longer.
    public func contents() throws(SystemError) -> [UInt8] {
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

    /// Takes the memory for all of it, so that nothing written to it has to wait for memory, or fails for want of it.
    public func reserve() throws(SystemError) {
        let raw = descriptor.raw
        _ = try attempt("take \(byteCount >> 20) MiB for a memory file", advice: "free memory") { () throws(Errno) in
            try kernel(.posixFallocate) { -posix_fallocate(raw, 0, off_t(byteCount)) }
        }
    }

    /// Takes over a memory file that another process has made.
    init(adopting descriptor: consuming OwnedDescriptor) throws(SystemError) {
        let raw = descriptor.raw
        byteCount = try attempt("see the size of a memory file") { () throws(Errno) in
            Int(try kernel(.lseek) { orErrno(lseek(raw, 0, SEEK_END)) })
        }
        self.descriptor = descriptor
    }
}

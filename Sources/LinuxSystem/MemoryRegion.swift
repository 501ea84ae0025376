import Glibc
import Synchronization
import SystemPackage

/// A mapped range of whole pages that a workload works in, or is copied to when it stops, and an agent moves.
///
/// Both keep the object alive: the mapping goes when the last of them does.
public final class MemoryRegion: Sendable {
    /// Which region it is, unique within its workload.
    public let name: String
    /// Bytes in a page.
    public let pageSize: Int
    /// Pages in the region.
    public let pageCount: Int
    private let mapping: Mapping
    /// Whether it is a memory file's: dropping the mapping's pages alone would free nothing.
    private let isFile: Bool
    private let kept = Mutex<[any AnyObject & Sendable]>([])

    /// Maps private anonymous memory of `pageCount` pages: of 4096 bytes, transparent huge pages off, or of 2 MiB, out of
    /// ``HugePagePool``.
    public init(name: String, pageSize: Int = 4096, pageCount: Int) throws(SystemError) {
        precondition(pageSize == 4096 || pageSize == HugePagePool.pageSize, "no memory has pages of \(pageSize) bytes")
        self.name = name
        self.pageSize = pageSize
        self.pageCount = pageCount
        isFile = false
        if pageSize == HugePagePool.pageSize {
            mapping = try Mapping(hugePages: pageCount)
        } else {
            mapping = try Mapping(anonymousBytes: pageSize * pageCount)
            try mapping.advise(.noHugePages)
        }
    }

    /// Maps a part of a memory file of small pages, shared with whoever else has the file.
    ///
    /// - Parameters:
    ///   - pageSize: the pages that it is counted in: 4096 bytes or 2 MiB.
    ///   - offset: where the part begins, in bytes; a multiple of 4096.
    public init(
        name: String,
        pageSize: Int,
        pageCount: Int,
        of file: borrowing MemoryFile,
        at offset: Int
    ) throws(SystemError) {
        precondition(pageSize == 4096 || pageSize == HugePagePool.pageSize, "no memory has pages of \(pageSize) bytes")
        self.name = name
        self.pageSize = pageSize
        self.pageCount = pageCount
        isFile = true
        mapping = try Mapping(sharing: file.descriptor, from: UInt64(offset), byteCount: pageSize * pageCount)
    }

    /// Lets memory of small pages have transparent huge pages, and makes them one by one. Pieces that hold only zeros stay
    /// as they are: they may take no memory. So does a memory file, whose holes would be filled by being looked at.
    ///
    /// - Parameter goesOn: asked after each piece.
    /// - Returns: false if it was not to go on.
    func collapse(_ goesOn: () -> Bool) throws(SystemError) -> Bool {
        guard !isFile else { return true }
        try mapping.advise(.hugePages)
        let size = TransparentHugePages.pageSize
        var offset = -Int(bitPattern: base) & (size - 1)
        while offset + size <= byteCount {
            if !ZeroScan.isZero(base + offset, byteCount: size) { try mapping.collapse(at: offset) }
            guard goesOn() else { return false }
            offset += size
        }
        return true
    }

    /// Keeps an object for as long as somebody may read the region: what its missing pages wait for.
    public func keep(_ object: any AnyObject & Sendable) {
        kept.withLock { $0.append(object) }
    }

    /// Where the region begins.
    public var base: UnsafeMutableRawPointer { mapping.base }

    /// Bytes in the region.
    public var byteCount: Int { mapping.byteCount }

    /// Where a page begins.
    @inline(__always)
    public func page(_ index: Int) -> UnsafeMutableRawPointer {
        mapping.base + index * pageSize
    }

    /// Gives the memory of pages back to the kernel: they read as zeros from now on.
    public func discard(_ pages: Range<Int>) throws(SystemError) {
        let byteCount = pages.count * pageSize
        _ = try attempt("give \(byteCount) bytes of memory back") { () throws(Errno) in
            try kernel(.madvise) {
                orErrno(madvise(page(pages.lowerBound), byteCount, isFile ? MADV_REMOVE : MADV_DONTNEED))
            }
        }
    }

    /// Whether the kernel has a page in place of a page's address: asked of the page tables, touching nothing.
    public static func isPresent(_ page: UnsafeMutableRawPointer) -> Bool {
        var isPresent: UInt8 = 0
        // One byte asks for the page that holds it. A failure says nothing, and the page counts as absent.
        _ = try? kernel(.mincore) { orErrno(mincore(page, 1, &isPresent)) }
        return isPresent & 1 != 0
    }

    /// The region as a range to register with a userfaultfd.
    public var range: PageRange {
        PageRange(address: UInt64(UInt(bitPattern: base)), pageSize: pageSize, pageCount: pageCount)
    }
}

/// A range of whole pages in some process's address space, this one's or another's.
public struct PageRange: Hashable, Sendable {
    /// Where it begins; a multiple of the page size.
    public let address: UInt64
    /// Bytes in a page, a power of two.
    public let pageSize: Int
    /// Pages in the range.
    public let pageCount: Int

    /// Whether its pages are huge ones, of which the kernel places each by itself, and none as zeros.
    @inline(__always)
    public var isHuge: Bool { pageSize > 4096 }

    /// Makes a range out of its parts.
    public init(address: UInt64, pageSize: Int, pageCount: Int) {
        self.address = address
        self.pageSize = pageSize
        self.pageCount = pageCount
    }

    /// Bytes in the range.
    public var byteCount: UInt64 { UInt64(pageSize) * UInt64(pageCount) }

    /// Where a page begins.
    @inline(__always)
    public func address(ofPage index: Int) -> UInt64 {
        address + UInt64(index) * UInt64(pageSize)
    }
}

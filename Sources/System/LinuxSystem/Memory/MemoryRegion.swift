import Glibc
import Synchronization
import SystemPackage

/// A mapped range of whole pages that an agent migrates.
///
/// A workload works in the range, or has its memory copied to it when the workload stops. Both the workload and the
/// agent hold the object: the memory is unmapped when the last of them releases it.
package final class MemoryRegion: Sendable {
    /// The region's name, unique within its workload.
    package let name: String
    /// Bytes in a page.
    package let pageSize: Int
    /// Pages in the region.
    package let pageCount: Int
    private let mapping: Mapping
    /// Whether the memory is a memory file's: dropping the mapping's pages alone would then free nothing.
    private let isFile: Bool
    private let kept = Mutex<[any AnyObject & Sendable]>([])

    /// Maps private anonymous memory of `pageCount` pages.
    ///
    /// Pages of 4096 bytes have transparent huge pages off. Pages of 2 MiB come from ``HugePagePool``.
    package init(name: String, pageSize: Int = 4096, pageCount: Int) throws(SystemError) {
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

    /// Maps a part of a memory file of small pages, shared with the file's other mappings.
    ///
    /// - Parameters:
    ///   - name: the region's name, unique within its workload.
    ///   - pageSize: the unit in which the region is counted: 4096 bytes or 2 MiB.
    ///   - pageCount: the length of the part, in units of `pageSize`.
    ///   - file: the memory file, which may be closed afterwards.
    ///   - offset: where the part begins in the file, in bytes; a multiple of 4096.
    package init(
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

    /// Turns transparent huge pages on for memory of small pages, and collapses its pieces one by one.
    ///
    /// Pieces that hold only zeros stay as they are, since they may take no memory. A memory file stays as it is too,
    /// since looking at its holes would fill them.
    ///
    /// - Parameter goesOn: asked after each piece whether to continue.
    /// - Returns: false if `goesOn` said no.
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

    /// Keeps an object for as long as the region can be read, such as one that its missing pages depend on.
    package func keep(_ object: any AnyObject & Sendable) {
        kept.withLock { $0.append(object) }
    }

    /// The address of the first byte.
    package var base: UnsafeMutableRawPointer { mapping.base }

    /// Bytes in the region.
    package var byteCount: Int { mapping.byteCount }

    /// The address of a page.
    @inline(__always)
    package func page(_ index: Int) -> UnsafeMutableRawPointer {
        mapping.base + index * pageSize
    }

    /// Returns the memory of pages to the kernel: the pages read as zeros from now on.
    package func discard(_ pages: Range<Int>) throws(SystemError) {
        let byteCount = pages.count * pageSize
        _ = try attempt("return \(byteCount) bytes of memory to the kernel") { () throws(Errno) in
            try kernel(.madvise) {
                orErrno(madvise(page(pages.lowerBound), byteCount, isFile ? MADV_REMOVE : MADV_DONTNEED))
            }
        }
    }

    /// Whether a page is present, according to the page tables (mincore); the page is not touched.
    package static func isPresent(_ page: UnsafeMutableRawPointer) -> Bool {
        var isPresent: UInt8 = 0
        // One byte asks about the page that holds it. If the call fails, the page counts as absent.
        _ = try? kernel(.mincore) { orErrno(mincore(page, 1, &isPresent)) }
        return isPresent & 1 != 0
    }

    /// The region as a range to register with a userfaultfd.
    package var range: PageRange {
        PageRange(address: UInt64(UInt(bitPattern: base)), pageSize: pageSize, pageCount: pageCount)
    }
}

/// A range of whole pages in the address space of this process or another.
package struct PageRange: Hashable, Sendable {
    /// The address of the first byte; a multiple of the page size.
    package let address: UInt64
    /// Bytes in a page, a power of two.
    package let pageSize: Int
    /// Pages in the range.
    package let pageCount: Int

    /// Whether the pages are huge ones: the kernel places them one at a time, and never as zero pages.
    @inline(__always)
    package var isHuge: Bool { pageSize > 4096 }

    /// Creates a range, whose alignment is not checked.
    package init(address: UInt64, pageSize: Int, pageCount: Int) {
        self.address = address
        self.pageSize = pageSize
        self.pageCount = pageCount
    }

    /// Bytes in the range.
    package var byteCount: UInt64 { UInt64(pageSize) * UInt64(pageCount) }

    /// The address of a page.
    @inline(__always)
    package func address(ofPage index: Int) -> UInt64 {
        address + UInt64(index) * UInt64(pageSize)
    }
}

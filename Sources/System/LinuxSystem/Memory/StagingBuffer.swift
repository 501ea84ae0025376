import Glibc

/// Memory through which a guest's pages pass; core dumps leave it out, like the guest's own memory.
///
/// `@unchecked Sendable`: the bytes stay at the same address for the value's whole life, and only the value's owner
/// reads and writes them.
package struct StagingBuffer: ~Copyable, @unchecked Sendable {
    /// The memory, a whole number of pages.
    package let bytes: UnsafeMutableRawBufferPointer

    /// Allocates at least `byteCount` bytes.
    package init(byteCount: Int) {
        bytes = .allocate(byteCount: (byteCount + 4095) & ~4095, alignment: 4096)
        advise(MADV_DONTDUMP)
    }

    deinit {
        // The allocator may give these pages to other code.
        advise(MADV_DODUMP)
        bytes.deallocate()
    }

    private func advise(_ advice: CInt) {
        // If the kernel cannot take the advice, core dumps contain the pages, and nothing else changes.
        _ = try? kernel(.madvise) { orErrno(madvise(bytes.baseAddress, bytes.count, advice)) }
    }
}

/// One region of a workload's memory, as its source reads it once the workload has stopped.
package enum SourceRegion: Sendable {
    /// Memory that is mapped in this process.
    case mapped(MemoryRegion)
    /// Private memory of another process, which is copied when it is asked for.
    case ofProcess(ProcessRegion)
    /// A memory file that another process fills, which is copied when it is asked for.
    case ofFile(FileRegion)

    /// Bytes in a page.
    package var pageSize: Int {
        switch self {
        case .mapped(let region): region.pageSize
        case .ofProcess(let region): region.range.pageSize
        case .ofFile(let region): region.pageSize
        }
    }

    /// Pages in the region.
    package var pageCount: Int {
        switch self {
        case .mapped(let region): region.pageCount
        case .ofProcess(let region): region.range.pageCount
        case .ofFile(let region): region.pageCount
        }
    }

    /// Bytes in the region.
    package var byteCount: Int { pageSize * pageCount }

    /// The mapping in this process; nil if there is none.
    package var mapped: MemoryRegion? {
        if case .mapped(let region) = self { region } else { nil }
    }

    /// Calls `body` with the first bytes of a page.
    ///
    /// - Parameters:
    ///   - page: the page's index in the region.
    ///   - byteCount: at most the bytes of a page.
    ///   - body: receives the bytes, which are valid until it returns.
    /// - Throws: `SystemError` if the page cannot be read.
    package func withStart<Value>(
        ofPage page: Int,
        byteCount: Int,
        _ body: (UnsafeRawBufferPointer) -> Value
    ) throws(SystemError) -> Value {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
        defer { buffer.deallocate() }
        _ = try copy(from: page * pageSize, into: buffer, atLeast: byteCount)
        return body(UnsafeRawBufferPointer(buffer))
    }

    /// Copies pages.
    ///
    /// - Parameters:
    ///   - pages: pages of the region, at least one.
    ///   - buffer: has room for the bytes of all these pages.
    /// - Returns: how many of the pages were copied, from the first one on; fewer than asked for if a later page cannot
    ///   be read.
    /// - Throws: why the first page cannot be read: its process has ended, or has taken the page away.
    package func copy(_ pages: Range<Int>, to buffer: UnsafeMutableRawPointer) throws(SystemError) -> Int {
        let pageSize = pageSize
        let bytes = UnsafeMutableRawBufferPointer(start: buffer, count: pages.count * pageSize)
        return try copy(from: pages.lowerBound * pageSize, into: bytes, atLeast: pageSize) / pageSize
    }

    /// Copies bytes of the region.
    ///
    /// - Returns: the bytes copied, at least `least`.
    private func copy(
        from offset: Int,
        into buffer: UnsafeMutableRawBufferPointer,
        atLeast least: Int
    ) throws(SystemError) -> Int {
        switch self {
        case .mapped(let region):
            buffer.copyMemory(from: UnsafeRawBufferPointer(start: region.base + offset, count: buffer.count))
            return buffer.count
        case .ofProcess(let region): return try region.read(from: offset, into: buffer, atLeast: least)
        case .ofFile(let region): return try region.read(from: offset, into: buffer, atLeast: least)
        }
    }

    /// Returns the memory of pages to the kernel, or asks the process to do so.
    package func discard(_ pages: Range<Int>) throws(SystemError) {
        switch self {
        case .mapped(let region): try region.discard(pages)
        case .ofProcess(let region): region.free(pages)
        case .ofFile(let region): try region.discard(pages)
        }
    }
}

/// A region of another process's private memory.
///
/// A page that the process has dropped (`MADV_DONTNEED`) reads as zeros, and cannot be told from a page that it has
/// never written.
package final class ProcessRegion: Sendable {
    /// The region in the address space of its process.
    package let range: PageRange
    /// Asks the process to drop pages, which does not wait for it; does nothing if the process does not do that.
    package let free: @Sendable (_ pages: Range<Int>) -> Void
    private let memory: ProcessMemory

    /// Makes a region of a process's memory.
    ///
    /// - Parameters:
    ///   - range: the region's addresses in the process.
    ///   - memory: the memory of that process.
    ///   - free: asks the process to drop pages.
    package init(_ range: PageRange, of memory: ProcessMemory, free: @escaping @Sendable (Range<Int>) -> Void) {
        self.range = range
        self.memory = memory
        self.free = free
    }

    fileprivate func read(
        from offset: Int,
        into buffer: UnsafeMutableRawBufferPointer,
        atLeast least: Int
    ) throws(SystemError) -> Int {
        try memory.read(range.address + UInt64(offset), into: buffer, atLeast: least)
    }
}

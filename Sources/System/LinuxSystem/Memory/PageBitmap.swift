import Synchronization

/// One bit per page, read and set by any thread without a lock.
///
/// `@unchecked Sendable`: the words live in a mapping that never moves, and are only accessed atomically.
package final class PageBitmap: @unchecked Sendable {
    /// The number of pages, which is the number of bits.
    package let pageCount: Int
    private let memory: SharedMemory
    private let words: UnsafeMutablePointer<Atomic<UInt64>>
    private let setCount = Atomic<Int>(0)

    /// Creates a bitmap with no bit set.
    package convenience init(pageCount: Int) throws(SystemError) {
        let byteCount = max(4096, (PageBitmap.byteCount(forPages: pageCount) + 4095) & ~4095)
        self.init(pageCount: pageCount, in: try SharedMemory(anonymousBytes: byteCount), at: 0)
    }

    /// Creates a bitmap of the bits that a piece of memory holds.
    ///
    /// Only this bitmap may change the bits while it is used.
    ///
    /// - Parameters:
    ///   - pageCount: bits in the bitmap, one for each page.
    ///   - memory: memory that may outlive this process.
    ///   - offset: where the piece begins in the memory, in bytes; a multiple of 64.
    package init(pageCount: Int, in memory: SharedMemory, at offset: Int) {
        self.pageCount = pageCount
        self.memory = memory
        let wordCount = (pageCount + 63) / 64
        words = memory.piece(at: offset, byteCount: wordCount * 8)
            .bindMemory(to: Atomic<UInt64>.self, capacity: wordCount)
        var count = 0
        for word in 0..<wordCount { count += words[word].load(ordering: .relaxed).nonzeroBitCount }
        setCount.store(count, ordering: .relaxed)
    }

    /// Bytes that the bits of `pageCount` pages take, a multiple of 8.
    package static func byteCount(forPages pageCount: Int) -> Int { (pageCount + 63) / 64 * 8 }

    /// The number of bits that are set.
    package var count: Int { setCount.load(ordering: .acquiring) }

    /// Whether every bit is set.
    package var isFull: Bool { count == pageCount }

    /// Whether a page's bit is set.
    ///
    /// Acquires: if the bit is set, everything written before it was set is seen.
    @inline(__always)
    package func contains(_ page: Int) -> Bool {
        words[page >> 6].load(ordering: .acquiring) & (1 << UInt64(page & 63)) != 0
    }

    /// Sets a page's bit.
    ///
    /// Releases: a thread that sees the bit set sees everything written before.
    ///
    /// - Returns: whether the bit was clear before.
    @inline(__always)
    @discardableResult
    package func insert(_ page: Int) -> Bool {
        let bit: UInt64 = 1 << UInt64(page & 63)
        let old = words[page >> 6].bitwiseOr(bit, ordering: .acquiringAndReleasing).oldValue
        guard old & bit == 0 else { return false }
        setCount.add(1, ordering: .acquiringAndReleasing)
        return true
    }

    /// Clears a page's bit.
    ///
    /// Acquires and releases, as ``insert(_:)`` does.
    ///
    /// - Returns: whether the bit was set before.
    @inline(__always)
    @discardableResult
    package func remove(_ page: Int) -> Bool {
        let bit: UInt64 = 1 << UInt64(page & 63)
        let old = words[page >> 6].bitwiseAnd(~bit, ordering: .acquiringAndReleasing).oldValue
        guard old & bit != 0 else { return false }
        setCount.subtract(1, ordering: .acquiringAndReleasing)
        return true
    }

    /// Sets the bits of a run of pages.
    ///
    /// Releases, as ``insert(_:)`` does. Bits are set up to 64 at a time, so other threads may see a part of the run.
    ///
    /// - Returns: how many of the bits were clear before.
    package func insert(run: Range<Int>) -> Int {
        var added = 0
        var page = run.lowerBound
        while page < run.upperBound {
            let bits = min(64 - page & 63, run.upperBound - page)
            let mask: UInt64 = (bits == 64 ? .max : (1 << UInt64(bits)) - 1) << UInt64(page & 63)
            let old = words[page >> 6].bitwiseOr(mask, ordering: .acquiringAndReleasing).oldValue
            added += (mask & ~old).nonzeroBitCount
            page += bits
        }
        if added > 0 { setCount.add(added, ordering: .acquiringAndReleasing) }
        return added
    }

    /// Whether no bit of a run is set.
    @inline(__always)
    package func isClear(_ run: Range<Int>) -> Bool {
        var page = run.lowerBound
        while page < run.upperBound {
            let bits = min(64 - page & 63, run.upperBound - page)
            let mask: UInt64 = (bits == 64 ? .max : (1 << UInt64(bits)) - 1) << UInt64(page & 63)
            guard words[page >> 6].load(ordering: .acquiring) & mask == 0 else { return false }
            page += bits
        }
        return true
    }

    /// The number of bits of a run that are set here and, if another bitmap is given, clear there.
    package func count(in run: Range<Int>, without other: PageBitmap? = nil) -> Int {
        var count = 0
        var page = run.lowerBound
        while page < run.upperBound {
            let bits = min(64 - page & 63, run.upperBound - page)
            let mask: UInt64 = (bits == 64 ? .max : (1 << UInt64(bits)) - 1) << UInt64(page & 63)
            let others = other?.words[page >> 6].load(ordering: .relaxed) ?? 0
            count += (words[page >> 6].load(ordering: .relaxed) & mask & ~others).nonzeroBitCount
            page += bits
        }
        return count
    }

    /// The first page at or after `page` whose bit is clear, or nil.
    package func firstClear(from page: Int) -> Int? {
        page < pageCount ? firstClear(in: page..<pageCount) : nil
    }

    /// The first page of a run whose bit is clear, or nil.
    package func firstClear(in run: Range<Int>) -> Int? {
        var page = run.lowerBound
        while page < run.upperBound {
            let clear = ~words[page >> 6].load(ordering: .acquiring) >> UInt64(page & 63)
            if clear != 0 {
                let found = page + clear.trailingZeroBitCount
                return found < run.upperBound ? found : nil
            }
            page = (page | 63) + 1
        }
        return nil
    }

    /// The bits of a run of pages, the lowest of each byte first.
    ///
    /// - Parameter pages: begins with a multiple of 8.
    package func bytes(of pages: Range<Int>) -> [UInt8] {
        precondition(pages.lowerBound & 7 == 0, "a byte begins with a multiple of 8")
        return stride(from: pages.lowerBound, to: pages.upperBound, by: 8).map { page in
            let byte = UInt8(truncatingIfNeeded: words[page >> 6].load(ordering: .acquiring) >> UInt64(page & 56))
            return page + 8 <= pages.upperBound ? byte : byte & (1 << UInt8(pages.upperBound - page) - 1)
        }
    }

    /// Replaces all bits by those that ``bytes(of:)`` returned for all pages.
    ///
    /// No other thread may use the bitmap meanwhile.
    package func assign(_ bytes: [UInt8]) {
        precondition(bytes.count == (pageCount + 7) / 8, "a bit a page")
        var count = 0
        for word in 0..<(pageCount + 63) / 64 {
            var value: UInt64 = 0
            for (index, byte) in bytes[(word * 8)..<min(bytes.count, word * 8 + 8)].enumerated() {
                value |= UInt64(byte) << UInt64(8 * index)
            }
            words[word].store(value, ordering: .releasing)
            count += value.nonzeroBitCount
        }
        setCount.store(count, ordering: .releasing)
    }
}

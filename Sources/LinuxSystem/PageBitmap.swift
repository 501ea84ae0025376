import Synchronization

/// One bit a page, read and set by any thread without a lock.
///
/// `@unchecked Sendable`: the words live in a mapping that is never moved and are only touched atomically.
public final class PageBitmap: @unchecked Sendable {
    /// Pages the bitmap stands for.
    public let pageCount: Int
    private let memory: SharedMemory
    private let words: UnsafeMutablePointer<Atomic<UInt64>>
    private let setCount = Atomic<Int>(0)

    /// Makes a bitmap with no bit set.
    public convenience init(pageCount: Int) throws(SystemError) {
        let byteCount = max(4096, (PageBitmap.byteCount(forPages: pageCount) + 4095) & ~4095)
        self.init(pageCount: pageCount, in: try SharedMemory(anonymousBytes: byteCount), at: 0)
    }

    /// Makes a bitmap of the bits that stand in a piece of memory. While it is used, nobody else changes them.
    ///
    /// - Parameter offset: where the piece begins, in bytes; a multiple of 64.
    public init(pageCount: Int, in memory: SharedMemory, at offset: Int) {
        self.pageCount = pageCount
        self.memory = memory
        let wordCount = (pageCount + 63) / 64
        words = memory.piece(at: offset, byteCount: wordCount * 8)
            .bindMemory(to: Atomic<UInt64>.self, capacity: wordCount)
        var count = 0
        for word in 0..<wordCount { count += words[word].load(ordering: .relaxed).nonzeroBitCount }
        setCount.store(count, ordering: .relaxed)
    }

    /// Bytes that the bits of so many pages take.
    public static func byteCount(forPages pageCount: Int) -> Int { (pageCount + 63) / 64 * 8 }

    /// How many bits are set.
    public var count: Int { setCount.load(ordering: .acquiring) }

    /// Whether every page's bit is set.
    public var isFull: Bool { count == pageCount }

    /// Whether a page's bit is set. Acquires: what was written before the bit was set is seen.
    @inline(__always)
    public func contains(_ page: Int) -> Bool {
        words[page >> 6].load(ordering: .acquiring) & (1 << UInt64(page & 63)) != 0
    }

    /// Sets a page's bit and tells whether it was clear before. Releases what was written before.
    @inline(__always)
    @discardableResult
    public func insert(_ page: Int) -> Bool {
        let bit: UInt64 = 1 << UInt64(page & 63)
        let old = words[page >> 6].bitwiseOr(bit, ordering: .acquiringAndReleasing).oldValue
        guard old & bit == 0 else { return false }
        setCount.add(1, ordering: .acquiringAndReleasing)
        return true
    }

    /// Clears a page's bit and tells whether it was set before.
    @inline(__always)
    @discardableResult
    public func remove(_ page: Int) -> Bool {
        let bit: UInt64 = 1 << UInt64(page & 63)
        let old = words[page >> 6].bitwiseAnd(~bit, ordering: .acquiringAndReleasing).oldValue
        guard old & bit != 0 else { return false }
        setCount.subtract(1, ordering: .acquiringAndReleasing)
        return true
    }

    /// Sets the bits of a run of pages and tells how many were clear before.
    public func insert(run: Range<Int>) -> Int {
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
    public func isClear(_ run: Range<Int>) -> Bool {
        var page = run.lowerBound
        while page < run.upperBound {
            let bits = min(64 - page & 63, run.upperBound - page)
            let mask: UInt64 = (bits == 64 ? .max : (1 << UInt64(bits)) - 1) << UInt64(page & 63)
            guard words[page >> 6].load(ordering: .acquiring) & mask == 0 else { return false }
            page += bits
        }
        return true
    }

    /// The first page at or after `page` whose bit is clear, or nil.
    public func firstClear(from page: Int) -> Int? {
        page < pageCount ? firstClear(in: page..<pageCount) : nil
    }

    /// The first page of a run whose bit is clear, or nil.
    public func firstClear(in run: Range<Int>) -> Int? {
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

    /// The bits of a run of pages, the lowest of each byte first; `pages` begins with a multiple of 8.
    public func bytes(of pages: Range<Int>) -> [UInt8] {
        precondition(pages.lowerBound & 7 == 0, "a byte begins with a multiple of 8")
        return stride(from: pages.lowerBound, to: pages.upperBound, by: 8).map { page in
            let byte = UInt8(truncatingIfNeeded: words[page >> 6].load(ordering: .acquiring) >> UInt64(page & 56))
            return page + 8 <= pages.upperBound ? byte : byte & (1 << UInt8(pages.upperBound - page) - 1)
        }
    }

    /// Makes the bits these, as ``bytes(of:)`` of all pages gave them. Nobody else uses the bitmap meanwhile.
    public func assign(_ bytes: [UInt8]) {
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

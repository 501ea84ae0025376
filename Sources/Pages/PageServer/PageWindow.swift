import LinuxSystem

/// Pages of one region that lie one after the other in this process's memory, where they can be looked at and sent.
struct ShownPages {
    /// The pages, as indices in their region.
    let pages: Range<Int>
    /// Bytes in a page.
    let pageSize: Int
    /// Whether the pages lie in the buffer of a window, and not in place.
    let isCopy: Bool
    private let start: UnsafeMutableRawPointer

    @inline(__always)
    init(_ pages: Range<Int>, at start: UnsafeMutableRawPointer, pageSize: Int, isCopy: Bool = false) {
        self.pages = pages
        self.start = start
        self.pageSize = pageSize
        self.isCopy = isCopy
    }

    @inline(__always)
    func address(of page: Int) -> UnsafeMutableRawPointer { start + (page - pages.lowerBound) * pageSize }

    @inline(__always)
    func isZero(_ page: Int) -> Bool { ZeroScan.isZero(address(of: page), byteCount: pageSize) }
}

/// The buffers of one thread through which pages of another process pass on their way to the socket.
///
/// Memory that is mapped in this process needs no buffer, and is shown in place. A page larger than 4 KiB passes through
/// a buffer of its own.
struct PageWindow: ~Copyable {
    /// The bytes of a small page.
    static let smallPage = 4096
    /// Small pages that the buffer holds: few enough to stay in the processor's cache.
    private static let smallPages = 64
    private static let smallBytes = smallPages * smallPage

    private let buffer: StagingBuffer?
    private let base: UnsafeMutableRawPointer?
    private let largestPage: Int
    /// The buffers that large pages are copied to; nil if this window has its own.
    private let shared: LargePageBuffers?
    private var large: LargePageBuffer?
    /// Bytes at the beginning of the buffer that wait to be sent; all of them if a large page waits.
    private var waiting = 0
    /// The small pages that were copied last.
    private var copied: (pages: ShownPages, region: Int)?

    /// Makes a window.
    ///
    /// - Parameters:
    ///   - largestPage: the size of the largest page that is copied, in bytes; 0 if none is.
    ///   - shared: the buffers of large pages, which must have room for the largest; nil if this window makes its own.
    init(copying largestPage: Int, sharing shared: LargePageBuffers? = nil) {
        self.largestPage = largestPage
        self.shared = shared
        guard largestPage > 0 else {
            buffer = nil
            base = nil
            return
        }
        let buffer = StagingBuffer(byteCount: PageWindow.smallBytes)
        base = buffer.bytes.baseAddress
        self.buffer = consume buffer
    }

    deinit {
        if let shared, let large { shared.giveBack(large) }
    }

    /// Whether the pages that wait must be sent before others can be copied.
    @inline(__always)
    var isFull: Bool { waiting > PageWindow.smallBytes - PageWindow.smallPage }

    /// Keeps shown pages up to `end` where they are until ``empty()``.
    @inline(__always)
    mutating func keep(_ shown: ShownPages, upTo end: Int) {
        guard shown.isCopy, let base else { return }
        waiting =
            shown.pageSize > PageWindow.smallPage ? PageWindow.smallBytes : max(waiting, shown.address(of: end) - base)
    }

    /// Frees the buffers, after all that waited was sent.
    @inline(__always)
    mutating func empty() {
        waiting = 0
        if let shared, let large {
            shared.giveBack(large)
            self.large = nil
        }
    }

    /// The pages that were copied last, if one of them is this page.
    func lastCopy(with page: Int, region: Int) -> ShownPages? {
        guard let copied, copied.region == region, copied.pages.pages.contains(page) else { return nil }
        return copied.pages
    }

    /// Copies pages of another process, as many as fit.
    ///
    /// The window must not be full.
    ///
    /// - Throws: why the first page cannot be read.
    mutating func copy(
        _ pages: Range<Int>,
        of region: SourceRegion,
        number: Int
    ) throws(SystemError) -> ShownPages {
        guard let base, !isFull else { preconditionFailure("the window has room for a page") }
        let pageSize = region.pageSize
        guard pageSize == PageWindow.smallPage else { return try copyLarge(pages.lowerBound, of: region) }
        copied = nil
        let count = min(pages.count, (PageWindow.smallBytes - waiting) / pageSize)
        let wanted = pages.lowerBound..<pages.lowerBound + count
        let found = try region.copy(wanted, to: base + waiting)
        let shown = ShownPages(wanted.prefix(found), at: base + waiting, pageSize: pageSize, isCopy: true)
        copied = (shown, number)
        return shown
    }

    private mutating func copyLarge(_ page: Int, of region: SourceRegion) throws(SystemError) -> ShownPages {
        // The window may still hold the buffer of a page that was not kept, such as a page of zeros.
        let buffer = large ?? shared?.take() ?? LargePageBuffer(byteCount: largestPage)
        large = buffer
        guard let base = buffer.base else { preconditionFailure("a buffer that was allocated has a base") }
        _ = try region.copy(page..<page + 1, to: base)
        return ShownPages(page..<page + 1, at: base, pageSize: region.pageSize, isCopy: true)
    }
}

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

/// The buffer of one thread through which pages of another process pass on their way to the socket.
///
/// Memory that is mapped in this process needs no buffer, and is shown in place.
struct PageWindow: ~Copyable {
    /// Small pages that the buffer holds: few enough to stay in the processor's cache.
    private static let smallPages = 64
    private static let smallBytes = smallPages * 4096

    private let buffer: StagingBuffer?
    private let base: UnsafeMutableRawPointer?
    /// Bytes at the beginning of the buffer that wait to be sent.
    private var waiting = 0
    /// The pages that were copied last.
    private var copied: (pages: ShownPages, region: Int)?

    /// Makes a window.
    ///
    /// - Parameter pageSize: the size of the largest page that is copied, in bytes; 0 if none is.
    init(copying pageSize: Int) {
        guard pageSize > 0 else {
            buffer = nil
            base = nil
            return
        }
        // Any page fits after small ones, as long as the window is not full.
        let buffer = StagingBuffer(byteCount: pageSize + PageWindow.smallBytes - 4096)
        base = buffer.bytes.baseAddress
        self.buffer = consume buffer
    }

    /// Whether the pages that wait must be sent before others can be copied.
    @inline(__always)
    var isFull: Bool { waiting > PageWindow.smallBytes - 4096 }

    /// Keeps shown pages up to `end` where they are until ``empty()``.
    @inline(__always)
    mutating func keep(_ shown: ShownPages, upTo end: Int) {
        guard shown.isCopy, let base else { return }
        waiting = max(waiting, shown.address(of: end) - base)
    }

    /// Frees the buffer, after all that waited was sent.
    @inline(__always)
    mutating func empty() { waiting = 0 }

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
        copied = nil
        let pageSize = region.pageSize
        let count = min(pages.count, max(1, (PageWindow.smallBytes - waiting) / pageSize))
        let wanted = pages.lowerBound..<pages.lowerBound + count
        let found = try region.copy(wanted, to: base + waiting)
        let shown = ShownPages(wanted.prefix(found), at: base + waiting, pageSize: pageSize, isCopy: true)
        copied = (shown, number)
        return shown
    }
}

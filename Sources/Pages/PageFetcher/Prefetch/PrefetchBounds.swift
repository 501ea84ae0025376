import LinuxSystem

/// The bounds of a policy in one region.
struct PrefetchBounds: Hashable {
    let pageCount: Int
    /// The most pages that one fault may request; for a window around a fault, this includes the fault's own page.
    let window: Int

    init(pageCount: Int, window: Int) {
        self.pageCount = pageCount
        self.window = window
    }

    /// Makes the bounds for a range; if one page of the range is larger than the window, the window is 0.
    ///
    /// - Parameters:
    ///   - range: the range, with pages of any size.
    ///   - window: the window in pages of 4096 bytes.
    init(_ range: PageRange, window: Int) {
        self.init(pageCount: range.pageCount, window: min(range.pageCount, window * 4096 / range.pageSize))
    }
}

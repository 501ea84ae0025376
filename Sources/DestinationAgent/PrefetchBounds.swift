import LinuxSystem

/// What bounds a policy in a region.
struct PrefetchBounds: Hashable {
    let pageCount: Int
    /// The most pages that one fault may ask for; of a window around it, its own among them.
    let window: Int

    init(pageCount: Int, window: Int) {
        self.pageCount = pageCount
        self.window = window
    }

    /// The bounds in a range of pages of any size: where one page is larger than the window, there is none.
    ///
    /// - Parameter window: pages of 4096 bytes.
    init(_ range: PageRange, window: Int) {
        self.init(pageCount: range.pageCount, window: min(range.pageCount, window * 4096 / range.pageSize))
    }
}

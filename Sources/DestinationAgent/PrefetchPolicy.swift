/// A fault that waits for its page.
struct Fault: Hashable {
    var region: Int
    var page: Int
    /// The thread that waits; 0 where the kernel was not asked for it.
    var thread: UInt32
}

/// Decides from the faults which pages to ask for before they are touched: faults in, ranges of pages out.
///
/// A policy is a value that knows neither memory nor sockets. It allocates nothing once it is made.
protocol PrefetchPolicy {
    /// Tells of a fault whose own page has been asked for.
    mutating func fault(_ fault: Fault, in missing: inout some MissingPages & ~Copyable)

    /// Pages that were asked for and that nothing shows to have been used.
    var unused: Int { get }
}

/// The pages that a policy can ask for.
protocol MissingPages: ~Copyable {
    /// Whether a page is neither there nor on its way.
    func isMissing(_ page: Int, region: Int) -> Bool

    /// Asks for those of the pages that are missing.
    ///
    /// - Parameter pages: pages of the region, or none.
    /// - Returns: how many were missing.
    mutating func ask(_ pages: Range<Int>, region: Int) -> Int
}

/// Asks for nothing.
struct NoPrefetch: PrefetchPolicy {
    @inline(__always)
    mutating func fault(_ fault: Fault, in missing: inout some MissingPages & ~Copyable) {}

    var unused: Int { 0 }
}

import LinuxSystem

/// A fault that waits for its page.
struct Fault: Hashable {
    var region: Int
    var page: Int
    /// The thread that waits; 0 if the kernel was not asked to report it.
    var thread: UInt32
    /// Why the access raised the fault.
    var kind = Userfaultfd.FaultKind.missing
}

/// Decides from faults which pages to request before they are touched: faults in, ranges of pages out.
///
/// A policy is a value without access to memory or sockets. It does not allocate after it was made.
protocol PrefetchPolicy {
    /// Reports a fault, whose own page has already been requested.
    mutating func fault(_ fault: Fault, in missing: inout some MissingPages & ~Copyable)

    /// The number of requested pages without evidence that they were used.
    var unused: Int { get }
}

/// The pages that a policy can request.
protocol MissingPages: ~Copyable {
    /// Whether a page is neither placed nor on its way.
    func isMissing(_ page: Int, region: Int) -> Bool

    /// Whether a fault on the page was read, whether or not the page has arrived.
    func hasFaulted(_ page: Int, region: Int) -> Bool

    /// Requests the missing pages among the given ones.
    ///
    /// - Parameters:
    ///   - pages: pages of the region; may be empty.
    ///   - region: the region's index.
    /// - Returns: the number of missing pages.
    mutating func ask(_ pages: Range<Int>, region: Int) -> Int
}

/// A policy that requests no pages.
struct NoPrefetch: PrefetchPolicy {
    @inline(__always)
    mutating func fault(_ fault: Fault, in missing: inout some MissingPages & ~Copyable) {}

    var unused: Int { 0 }
}

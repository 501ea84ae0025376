/// Follows streams, and requests the rest of each aligned block of which faults have touched a quarter.
///
/// A guest that goes over its memory in no order raises about four faults for a block instead of sixteen. Memory that is
/// touched sparsely has few such blocks, so its other pages are not fetched. A touch counts only if it raised a fault:
/// pages that a stream has brought say nothing about their neighbours.
///
/// Whether the rest of a block is used cannot be seen in time: a guest may come back to the block much later. At worst,
/// the blocks bring three further pages for each page that has raised a fault, and the windows of streams come on top.
struct BlockPrefetch: PrefetchPolicy {
    /// The pages of a block: 64 KiB, like the kernel's own fault-around.
    static let blockPages = 16
    /// The touched pages that make a block worth completing.
    private static let enough = 4

    private let regions: [PrefetchBounds]
    private var streams: StridePrefetch
    /// The pages that were requested to complete blocks.
    private var completing = 0

    /// Makes a policy that has seen no fault.
    ///
    /// - Parameters:
    ///   - streams: the regions, with the longest windows of streams.
    ///   - blocks: the regions, with windows of ``blockPages``; a region with a shorter window has no blocks.
    init(streams: [PrefetchBounds], blocks: [PrefetchBounds]) {
        regions = blocks
        self.streams = StridePrefetch(streams)
    }

    var unused: Int { streams.unused + completing }

    @inline(__always)
    mutating func fault(_ fault: Fault, in missing: inout some MissingPages & ~Copyable) {
        streams.fault(fault, in: &missing)
        let bounds = regions[fault.region]
        guard bounds.window == BlockPrefetch.blockPages else { return }
        let first = fault.page / BlockPrefetch.blockPages * BlockPrefetch.blockPages
        let block = first..<min(first + BlockPrefetch.blockPages, bounds.pageCount)
        var touched = 0
        for page in block where missing.hasFaulted(page, region: fault.region) { touched += 1 }
        if touched >= BlockPrefetch.enough { completing += missing.ask(block, region: fault.region) }
    }
}

import LinuxSystem
import PageProtocol
import Synchronization

/// Placing pages of hugetlbfs.
extension ArrivingMemory {
    /// Places a run of huge pages, each page by one thread only.
    ///
    /// The kernel reports EEXIST both for a huge page that is present and for an absent one when its pool is exhausted.
    /// Only our own record distinguishes the two.
    @inline(never)
    func placeHuge(
        _ run: PageRun,
        from source: UnsafeRawPointer?,
        origin: Origin
    ) throws(PlacementFailure) {
        let region = Int(run.region)
        let range = ranges[region]
        for index in 0..<Int(run.count) {
            let page = Int(run.first) + index
            guard claim(page, region: region) else {
                duplicate.add(1, ordering: .relaxed)
                continue
            }
            let isMapped: Bool
            do throws(PlacementFailure) {
                let bytes = source.map { $0 + index * range.pageSize } ?? UnsafeRawPointer(zeros.base)
                isMapped = try placeHugePage(at: range.address(ofPage: page), byteCount: range.pageSize, from: bytes)
            } catch {
                // The page may arrive again on another lane.
                claimed[region].remove(page)
                throw error
            }
            if isMapped {
                note(page..<page + 1, region: region, isZero: source == nil, origin: origin)
            } else {
                noteUnmapped(page, region: region)
            }
        }
    }

    /// Claims a huge page for the caller to place, waiting while another thread places it.
    ///
    /// - Returns: false if the page is already placed.
    private func claim(_ page: Int, region: Int) -> Bool {
        while !resident[region].contains(page) {
            if claimed[region].insert(page) { return true }
            JoinedThread.yield()
        }
        return false
    }

    /// Copies one huge page.
    ///
    /// - Returns: false if the page is not mapped any more.
    private func placeHugePage(
        at address: UInt64,
        byteCount: Int,
        from source: UnsafeRawPointer
    ) throws(PlacementFailure) -> Bool {
        var pauses = 0
        while true {
            switch userfaultfd.copy(to: address, from: source, byteCount: byteCount) {
            case .placed(byteCount): return true
            case .placed: throw .refused("only a part of a huge page was placed")
            case .present, .noMemory: try waitForMemory(.noHugePage, &pauses)
            case .again: try pause()
            case .unmapped: return false
            case .gone: throw .gone
            case .failed(let errno): throw .refused("\(errno)")
            }
        }
    }
}

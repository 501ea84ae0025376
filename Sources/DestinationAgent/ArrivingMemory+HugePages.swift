import LinuxSystem
import PageProtocol
import Synchronization

/// Pages of hugetlbfs.
extension ArrivingMemory {
    /// Places a run of huge pages, each of them by one thread only.
    ///
    /// The kernel says EEXIST of a huge page that is there, and also of one that is absent when its pool is exhausted: which
    /// of the two only the own record tells.
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
                // Another lane may bring it too.
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

    /// Whether a huge page is the caller's to place: false once it is there. While another thread places it, this waits.
    private func claim(_ page: Int, region: Int) -> Bool {
        while !resident[region].contains(page) {
            if claimed[region].insert(page) { return true }
            JoinedThread.yield()
        }
        return false
    }

    /// - Returns: false if the page is mapped no more.
    private func placeHugePage(
        at address: UInt64,
        byteCount: Int,
        from source: UnsafeRawPointer
    ) throws(PlacementFailure) -> Bool {
        while true {
            switch userfaultfd.copy(to: address, from: source, byteCount: byteCount) {
            case .placed(byteCount): return true
            case .placed: throw .refused("it has taken a part of a huge page")
            case .present: throw .noHugePage
            case .again: try pause()
            case .unmapped: return false
            case .gone: throw .gone
            case .noMemory: throw .noMemory
            case .failed(let errno): throw .refused("\(errno)")
            }
        }
    }
}

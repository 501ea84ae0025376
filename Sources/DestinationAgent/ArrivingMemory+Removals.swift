import LinuxSystem
import PageProtocol
import Synchronization

/// Memory whose process drops pages of it and tells so.
extension ArrivingMemory {
    /// Most pages that are placed before events can be read again.
    private static let longestTurn = 16

    /// Places those pages of a run that have not been placed or dropped.
    @inline(never)
    func place(
        _ run: PageRun,
        from source: UnsafeRawPointer?,
        origin: Origin,
        besides removals: Removals
    ) throws(PlacementFailure) {
        let first = Int(run.first)
        let end = first + Int(run.count)
        var page = first
        var longest = ranges[Int(run.region)].isHuge ? 1 : ArrivingMemory.longestTurn
        while page < end {
            try removals.inTurn { (turn) throws(PlacementFailure) in
                let bytes = source.map { $0 + (page - first) * ranges[Int(run.region)].pageSize }
                let part = PageRun(region: run.region, count: UInt32(end - page), first: UInt64(page))
                switch try placePart(part, from: bytes, atMost: longest, origin: origin) {
                case .done(let count): page += count
                case .split: longest = 1
                case .again:
                    try pause()
                    do throws(SystemError) {
                        try removals.readAhead(from: self, in: &turn)
                    } catch {
                        throw .refused("\(error)")
                    }
                }
            }
        }
    }

    private enum Part {
        /// So many pages need nothing more.
        case done(Int)
        /// The run may lie in two mappings: page by page.
        case split
        /// Events have to be read first.
        case again
    }

    /// Places the beginning of a run, in turn.
    private func placePart(
        _ run: PageRun,
        from source: UnsafeRawPointer?,
        atMost longest: Int,
        origin: Origin
    ) throws(PlacementFailure) -> Part {
        let region = Int(run.region)
        let (range, resident) = (ranges[region], resident[region])
        let (first, end) = (Int(run.first), Int(run.first) + Int(run.count))
        var page = first
        while page < end, resident.contains(page) { page += 1 }
        if page > first {
            duplicate.add(page - first, ordering: .relaxed)
            return .done(page - first)
        }
        var next = first + 1
        while next < min(end, first + longest), !resident.contains(next) { next += 1 }
        let address = range.address(ofPage: first)
        let byteCount = (next - first) * range.pageSize
        let placement =
            if let source = source ?? (range.isHuge ? UnsafeRawPointer(zeros.base) : nil) {
                userfaultfd.copy(to: address, from: source, byteCount: byteCount)
            } else {
                userfaultfd.zero(address, byteCount: byteCount)
            }
        switch placement {
        case .placed(let bytes):
            next = first + bytes / range.pageSize
            note(first..<next, region: region, isZero: source == nil, origin: origin)
            return .done(next - first)
        case .present:
            // A process that served before has placed it, and ended before it could note that.
            guard try isPlaced(at: address, in: range) else { throw .noHugePage }
            userfaultfd.wake(address, byteCount: range.pageSize)
            note(first..<first + 1, region: region, isZero: source == nil, origin: origin)
            return .done(1)
        case .again: return .again
        case .unmapped where byteCount > range.pageSize: return .split
        case .unmapped:
            noteUnmapped(first, region: region)
            return .done(1)
        case .gone: throw .gone
        case .noMemory: throw range.isHuge ? .noHugePage : .noMemory
        case .failed(let errno): throw .refused("\(errno)")
        }
    }

    /// Whether a page is there of which the kernel says EEXIST. Of a huge page it says that also when the pool is exhausted.
    /// Where nobody can be asked it is believed.
    func isPlaced(at address: UInt64, in range: PageRange) throws(PlacementFailure) -> Bool {
        guard range.isHuge else { return true }
        do throws(SystemError) {
            return try pageTable?.isPresent(address) ?? true
        } catch {
            throw .refused("\(error)")
        }
    }

    /// Notes that the process drops what lies between two addresses. In turn.
    func noteRemoved(from first: UInt64, to last: UInt64) {
        for (region, range) in ranges.enumerated() {
            let begin = max(first, range.address)
            let end = min(last, range.address + range.byteCount)
            guard begin < end else { continue }
            let size = UInt64(range.pageSize)
            // Inside of one page where the process has smaller pages than it said: none is dropped whole.
            let (lower, upper) = (Int((begin - range.address + size - 1) / size), Int((end - range.address) / size))
            guard lower < upper else { continue }
            noteRemoved(lower..<upper, region: region)
            // Who waits for one of them faults again, and gets zeros.
            userfaultfd.wake(begin, byteCount: Int(end - begin))
        }
    }
}

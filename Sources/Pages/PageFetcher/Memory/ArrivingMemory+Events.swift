import LinuxSystem
import PageProtocol
import Synchronization
import Telemetry

/// Placing pages in memory of a process that reports by events what it does to the memory.
extension ArrivingMemory {
    /// The most pages to place in one turn, before events can be read again.
    private static let longestTurn = 16

    /// The most small pages to place by one call.
    var longestStep: Int { events == nil ? .max : ArrivingMemory.longestTurn }

    /// Places pages by `body`, in turn with the thread that reads events, if they are read.
    @inline(__always)
    func placeInTurn<Result>(
        _ body: () throws(PlacementFailure) -> Result
    ) throws(PlacementFailure) -> Result {
        guard let events else { return try body() }
        return try events.placeInTurn(body)
    }

    /// Places the pages of a run that were neither placed nor dropped.
    @inline(never)
    func place(
        _ run: PageRun,
        from source: UnsafeRawPointer?,
        origin: Origin,
        besides events: MemoryEvents
    ) throws(PlacementFailure) {
        let first = Int(run.first)
        let end = first + Int(run.count)
        var page = first
        var longest = ranges[Int(run.region)].isHuge ? 1 : ArrivingMemory.longestTurn
        var pauses = 0
        while page < end {
            let bytes = source.map { $0 + (page - first) * ranges[Int(run.region)].pageSize }
            let part = PageRun(region: run.region, count: UInt32(end - page), first: UInt64(page))
            let placed = try events.placeInTurn { () throws(PlacementFailure) in
                try placePart(part, from: bytes, atMost: longest, origin: origin)
            }
            switch placed {
            case .done(let count): (page, pauses) = (page + count, 0)
            case .split: longest = 1
            case .short(let failure): try waitForMemory(failure, &pauses)
            case .again: try pause()
            }
        }
    }

    enum Part {
        /// This many pages were placed, or need not be.
        case done(Int)
        /// The run may cross two mappings, so it is placed page by page.
        case split
        /// No memory is left for the first page.
        case short(PlacementFailure)
        /// The kernel places no page until waiting events are read.
        case again
    }

    /// Places the beginning of a run; called inside a turn.
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
            // An earlier process placed this page and exited before it could record that.
            guard try isPlaced(at: address, in: range) else { return .short(.noHugePage) }
            userfaultfd.wake(address, byteCount: range.pageSize)
            note(first..<first + 1, region: region, isZero: source == nil, origin: origin)
            return .done(1)
        case .again: return .again
        case .unmapped where byteCount > range.pageSize: return .split
        case .unmapped:
            noteUnmapped(first, region: region)
            return .done(1)
        case .gone: throw .gone
        case .noMemory: return .short(range.isHuge ? .noHugePage : .noMemory)
        case .failed(let errno): throw .refused("\(errno)")
        }
    }

    /// Whether a page is present for which the kernel has reported EEXIST.
    ///
    /// For a huge page, the kernel also reports EEXIST when the pool is exhausted. The page table then decides, and for
    /// shared memory the file, whose page is mapped. Without a page table, a page that cannot be mapped counts as
    /// absent, since it would read as zeros otherwise.
    func isPlaced(at address: UInt64, in range: PageRange) throws(PlacementFailure) -> Bool {
        guard range.isHuge else { return true }
        do throws(SystemError) {
            if try pageTable?.isPresent(address) == true { return true }
        } catch {
            throw .refused("\(error)")
        }
        if case .placed = userfaultfd.map(address, byteCount: range.pageSize) { return true }
        return false
    }

    /// Takes note of an event that is no fault; called inside a turn.
    ///
    /// - Returns: why no page can be placed any more; nil if pages can.
    func take(_ event: Userfaultfd.Event) -> PlacementFailure? {
        switch event {
        case .removed(let start, let end):
            if let (region, count) = missingInFile(from: start, to: end) {
                return .lost(
                    "the process has dropped \(counted(count, "page")) of region \(region), a memory file, before the "
                        + "content had arrived (madvise)"
                )
            }
            noteRemoved(from: start, to: end)
        case .unmapped(let start, let end): noteRemoved(from: start, to: end)
        case .moved(let from, let to, let byteCount):
            // A moved page that has arrived would be looked for at its old address if the process dropped it.
            let moved = from..<from &+ byteCount
            guard let region = ranges.firstIndex(where: { moved.overlaps($0.address..<$0.address + $0.byteCount) })
            else { return nil }
            return .lost(
                "the process has moved memory of region \(region) from address \(from) to \(to) before all memory had "
                    + "arrived (mremap)"
            )
        case .fault, .forked, .other: break
        }
        return nil
    }

    /// The first region of a memory file with missing pages between two addresses, and their number; nil if no page is
    /// missing there.
    ///
    /// A page that lies only in part between the addresses counts.
    private func missingInFile(from first: UInt64, to last: UInt64) -> (region: Int, count: Int)? {
        for (region, range) in ranges.enumerated() where aliases[region] != nil {
            let begin = max(first, range.address)
            let end = min(last, range.address + range.byteCount)
            guard begin < end else { continue }
            let size = UInt64(range.pageSize)
            let pages = Int((begin - range.address) / size)..<Int((end - range.address + size - 1) / size)
            guard resident[region].firstClear(in: pages) != nil else { continue }
            return (region, pages.count { !resident[region].contains($0) })
        }
        return nil
    }

    /// Marks the pages between two addresses as dropped by the process; called inside a turn.
    private func noteRemoved(from first: UInt64, to last: UInt64) {
        for (region, range) in ranges.enumerated() {
            let begin = max(first, range.address)
            let end = min(last, range.address + range.byteCount)
            guard begin < end else { continue }
            let size = UInt64(range.pageSize)
            // The process may have smaller pages than it announced: a page that is dropped only in part is not marked.
            let (lower, upper) = (Int((begin - range.address + size - 1) / size), Int((end - range.address) / size))
            guard lower < upper else { continue }
            noteRemoved(lower..<upper, region: region)
            // A reader that waits for one of these pages faults again, and reads zeros.
            userfaultfd.wake(begin, byteCount: Int(end - begin))
        }
    }
}

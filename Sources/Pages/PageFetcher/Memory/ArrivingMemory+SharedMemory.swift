import LinuxSystem
import PageProtocol
import Synchronization

/// Placing pages in memory of another process that is also mapped here: bytes are received into it, and then mapped
/// there.
///
/// A thread claims a page before it writes to the page, and releases it before it waits for anything, so that a stalled
/// lane delays no other lane. No thread writes to a resident page, which the guest may have changed. A page that a
/// broken lane has received in part is not mapped, and the next lane writes the whole page.
extension ArrivingMemory {
    /// The most pages to claim at once.
    private static let longestClaim = 64

    var hasAliases: Bool { aliases.contains { $0 != nil } }

    /// Receives what has arrived of a run's bytes, which may be nothing.
    ///
    /// Bytes of pages that are resident are received into `scratch` and dropped.
    ///
    /// - Throws: ``PlacementFailure``, or the reason why the lane has ended.
    @inline(__always)
    func receive(
        _ run: inout ArrivingRun,
        on socket: borrowing StreamSocket,
        dropping scratch: UnsafeMutableRawBufferPointer,
        origin: Origin
    ) throws {
        let region = run.region
        let pageSize = ranges[region].pageSize
        guard let alias = aliases[region] else { preconditionFailure("only runs of aliases arrive in parts") }
        let rest = run.rest(pageSize: pageSize)
        let begun = run.received % pageSize
        let pages = claim(rest, region: region)
        defer { release(pages, region: region) }
        let received: Int?
        if pages.isEmpty {
            let byteCount = min(pageSize - begun, scratch.count)
            received = try socket.receiveArrived(
                into: UnsafeMutableRawBufferPointer(rebasing: scratch[..<byteCount])
            )
        } else {
            let bytes = pages.lowerBound * pageSize + begun..<pages.upperBound * pageSize
            do throws(SystemError) {
                received = try socket.receiveArrived(into: alias, bytes)
            } catch {
                throw error.errno.isMemoryGone ? PlacementFailure.takenAway : error
            }
        }
        guard let received else { return }
        guard received > 0 else { throw LaneClosed(peer: socket.peer) }
        run.received += received
        let whole = (begun + received) / pageSize
        if pages.isEmpty {
            duplicate.add(whole, ordering: .relaxed)
        } else if whole > 0 {
            try map(rest.lowerBound..<rest.lowerBound + whole, region: region, isZero: false, origin: origin)
        }
    }

    /// Places a run whose bytes are in a buffer of this process.
    @inline(never)
    func place(
        _ run: PageRun,
        from source: UnsafeRawPointer,
        in alias: MemoryAlias,
        origin: Origin
    ) throws(PlacementFailure) {
        let region = Int(run.region)
        let pageSize = ranges[region].pageSize
        let first = Int(run.first)
        let end = first + Int(run.count)
        var page = first
        while page < end {
            let pages = claim(page..<end, region: region)
            defer { release(pages, region: region) }
            guard !pages.isEmpty else {
                duplicate.add(1, ordering: .relaxed)
                page += 1
                continue
            }
            do throws(SystemError) {
                try alias.write(source + (page - first) * pageSize, to: page * pageSize..<pages.upperBound * pageSize)
            } catch {
                throw error.errno.isMemoryGone ? .takenAway : .refused("\(error)")
            }
            try map(pages, region: region, isZero: false, origin: origin)
            page = pages.upperBound
        }
    }

    /// Places a run of zeros.
    @inline(never)
    func placeZeros(_ run: PageRun, in alias: MemoryAlias, origin: Origin) throws(PlacementFailure) {
        let region = Int(run.region)
        let end = Int(run.first) + Int(run.count)
        var page = Int(run.first)
        while page < end {
            let pages = claim(page..<end, region: region)
            defer { release(pages, region: region) }
            if pages.isEmpty {
                duplicate.add(1, ordering: .relaxed)
                page += 1
            } else {
                try placeZeros(claimed: pages, region: region, in: alias, origin: origin)
                page = pages.upperBound
            }
        }
    }

    private func placeZeros(
        claimed pages: Range<Int>,
        region: Int,
        in alias: MemoryAlias,
        origin: Origin
    ) throws(PlacementFailure) {
        let range = ranges[region]
        var page = pages.lowerBound
        while page < pages.upperBound {
            let address = range.address(ofPage: page)
            let placement = try placeInTurn { () throws(PlacementFailure) in
                let placement =
                    if range.isHuge {
                        userfaultfd.copy(to: address, from: zeros.base, byteCount: range.pageSize)
                    } else {
                        userfaultfd.zero(address, byteCount: min(longestStep, pages.upperBound - page) * range.pageSize)
                    }
                if case .placed(let bytes) = placement {
                    note(page..<page + bytes / range.pageSize, region: region, isZero: true, origin: origin)
                }
                return placement
            }
            switch placement {
            case .placed(let bytes): page += bytes / range.pageSize
            case .again: try pause()
            default:
                // The page may be in the file already, for example because it was received in part; any other cause
                // makes the steps below fail.
                do throws(SystemError) {
                    try alias.zero(page * range.pageSize..<(page + 1) * range.pageSize)
                } catch {
                    // The file was truncated, or its process has exited.
                    throw .takenAway
                }
                try map(page..<page + 1, region: region, isZero: true, origin: origin)
                page += 1
            }
        }
    }

    /// Maps pages whose content is in the file into the process's memory.
    @inline(__always)
    private func map(_ pages: Range<Int>, region: Int, isZero: Bool, origin: Origin) throws(PlacementFailure) {
        var page = pages.lowerBound
        var step = min(longestStep, pages.count)
        while page < pages.upperBound {
            let part = page..<min(page + step, pages.upperBound)
            let mapped = try placeInTurn { () throws(PlacementFailure) in
                try mapPart(part, region: region, isZero: isZero, origin: origin)
            }
            switch mapped {
            case .done(let count): page += count
            case .split: step = 1
            case .short(let failure): throw failure
            case .again: try pause()
            }
        }
    }

    /// Maps the beginning of a run by one call.
    @inline(__always)
    private func mapPart(
        _ pages: Range<Int>,
        region: Int,
        isZero: Bool,
        origin: Origin
    ) throws(PlacementFailure) -> Part {
        let (range, page) = (ranges[region], pages.lowerBound)
        let address = range.address(ofPage: page)
        var mapped = page..<page + 1
        switch userfaultfd.map(address, byteCount: pages.count * range.pageSize) {
        case .placed(let bytes): mapped = page..<page + bytes / range.pageSize
        case .present:
            // The process mapped the page before it handed its memory over, and sees the received bytes there.
            userfaultfd.wake(address, byteCount: range.pageSize)
        case .again: return .again
        // The kernel also reports this for a run that crosses two mappings, so it is believed of a single page only.
        case .unmapped where pages.count > 1: return .split
        case .unmapped:
            noteUnmapped(page, region: region)
            return .done(1)
        case .gone: throw .gone
        case .noMemory: throw .noMemory
        case .failed(let errno) where errno.isMemoryGone: throw .takenAway
        case .failed(let errno): throw .refused("\(errno)")
        }
        note(mapped, region: region, isZero: isZero, origin: origin)
        return .done(mapped.count)
    }

    /// Answers a fault on a resident page that the process or the kernel has unmapped.
    ///
    /// - Returns: false if the file does not contain the page, which then reads as zeros.
    func answerFromFile(_ address: UInt64, byteCount: Int) throws(PlacementFailure) -> Bool {
        switch userfaultfd.map(address, byteCount: byteCount) {
        case .placed, .gone: break  // No thread waits in memory that does not exist.
        case .present, .again, .unmapped: userfaultfd.wake(address, byteCount: byteCount)
        case .noMemory: throw .noMemory
        case .failed(let errno) where errno.isMemoryGone: return false
        case .failed(let errno): throw .refused("\(errno)")
        }
        return true
    }

    /// Claims pages to write to, from the first of `pages` up to a page that is resident or that another thread writes
    /// to.
    ///
    /// Only a thread that has not claimed any page waits for another thread here, and that other thread is not waiting:
    /// there is no deadlock.
    ///
    /// - Returns: the claimed pages; none if the first page is resident.
    @inline(__always)
    private func claim(_ pages: Range<Int>, region: Int) -> Range<Int> {
        let (claimed, resident) = (claimed[region], resident[region])
        let limit = min(pages.upperBound, pages.lowerBound + ArrivingMemory.longestClaim)
        var end = pages.lowerBound
        while end < limit, !resident.contains(end) {
            if claimed.insert(end) {
                // Another thread may have placed the page and released its claim since the check of `resident`.
                if resident.contains(end) {
                    claimed.remove(end)
                    break
                }
                end += 1
            } else if end > pages.lowerBound {
                break
            } else {
                JoinedThread.yield()
            }
        }
        return pages.lowerBound..<end
    }

    @inline(__always)
    private func release(_ pages: Range<Int>, region: Int) {
        for page in pages { claimed[region].remove(page) }
    }
}

/// A run whose bytes are received in several parts.
struct ArrivingRun {
    private let run: PageRun
    /// The bytes of the run received so far.
    var received = 0

    init(_ run: PageRun) {
        self.run = run
    }

    var region: Int { Int(run.region) }

    /// The pages that were not received completely.
    @inline(__always)
    func rest(pageSize: Int) -> Range<Int> {
        Int(run.first) + received / pageSize..<Int(run.first) + Int(run.count)
    }

    @inline(__always)
    func isComplete(pageSize: Int) -> Bool { rest(pageSize: pageSize).isEmpty }
}

extension PlacementFailure {
    static let takenAway = Self(
        reason: "a page is not in the memory file: the process has truncated the file, punched a hole into it, or "
            + "handed over another file than it has mapped; or no memory is left"
    )
}

import LinuxSystem
import PageProtocol
import Synchronization

/// Memory of another process that is mapped here too: its pages are received straight into it, and then only mapped there.
///
/// Who writes to a page has claimed it before, and gives it back before waiting for anything: a lane that stalls holds up
/// no other. Nothing is ever written to a resident page, which the guest may have changed. A page that a broken lane has
/// left half received is mapped nowhere, and the next lane writes all of it.
extension ArrivingMemory {
    /// Pages that are claimed at once.
    private static let longestClaim = 64

    var hasAliases: Bool { aliases.contains { $0 != nil } }

    /// Receives what has arrived of a run's bytes, which may be nothing. Pages that are resident are received into
    /// `scratch` and dropped.
    ///
    /// - Throws: ``PlacementFailure``, or why the lane has ended.
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

    /// Makes pages zeros.
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
            let placement =
                if range.isHuge {
                    userfaultfd.copy(to: address, from: zeros.base, byteCount: range.pageSize)
                } else {
                    userfaultfd.zero(address, byteCount: (pages.upperBound - page) * range.pageSize)
                }
            switch placement {
            case .placed(let bytes):
                let placed = page..<page + bytes / range.pageSize
                note(placed, region: region, isZero: true, origin: origin)
                page = placed.upperBound
            case .again: try pause()
            default:
                // In the file already, as a page is that was received in part; or the rest says what is the matter.
                do throws(SystemError) {
                    try alias.zero(page * range.pageSize..<(page + 1) * range.pageSize)
                } catch {
                    throw .takenAway
                }
                try map(page..<page + 1, region: region, isZero: true, origin: origin)
                page += 1
            }
        }
    }

    /// Maps pages whose content is in the file, where the process sees them.
    @inline(__always)
    private func map(_ pages: Range<Int>, region: Int, isZero: Bool, origin: Origin) throws(PlacementFailure) {
        let range = ranges[region]
        var page = pages.lowerBound
        var step = pages.count
        while page < pages.upperBound {
            let address = range.address(ofPage: page)
            let byteCount = min(step, pages.upperBound - page) * range.pageSize
            var mapped = page..<page + 1
            switch userfaultfd.map(address, byteCount: byteCount) {
            case .placed(let bytes): mapped = page..<page + bytes / range.pageSize
            case .present:
                // The process had mapped it before it handed its memory over, and sees what has been received.
                userfaultfd.wake(address, byteCount: range.pageSize)
            case .again:
                try pause()
                continue
            case .unmapped where byteCount > range.pageSize:
                // The kernel says the same of a run that lies in two mappings: believed of a single page only.
                step = 1
                continue
            case .unmapped:
                noteUnmapped(page, region: region)
                page += 1
                continue
            case .gone: throw .gone
            case .noMemory: throw .noMemory
            case .failed(let errno) where errno.isMemoryGone: throw .takenAway
            case .failed(let errno): throw .refused("\(errno)")
            }
            note(mapped, region: region, isZero: isZero, origin: origin)
            page = mapped.upperBound
        }
    }

    /// Answers a fault on a resident page whose mapping the process or the kernel has dropped.
    ///
    /// - Returns: false if the file lacks the page: it reads as zeros.
    func answerFromFile(_ address: UInt64, byteCount: Int) throws(PlacementFailure) -> Bool {
        switch userfaultfd.map(address, byteCount: byteCount) {
        case .placed, .gone: break  // Nobody waits in memory that is not there.
        case .present, .again, .unmapped: userfaultfd.wake(address, byteCount: byteCount)
        case .noMemory: throw .noMemory
        case .failed(let errno) where errno.isMemoryGone: return false
        case .failed(let errno): throw .refused("\(errno)")
        }
        return true
    }

    /// Claims pages to write to, from the first of `pages` up to one that is resident or that another thread writes to.
    ///
    /// Only who has claimed nothing yet waits for another thread, which at that time waits for nobody.
    ///
    /// - Returns: the claimed pages; none if the first is resident.
    @inline(__always)
    private func claim(_ pages: Range<Int>, region: Int) -> Range<Int> {
        let (claimed, resident) = (claimed[region], resident[region])
        let limit = min(pages.upperBound, pages.lowerBound + ArrivingMemory.longestClaim)
        var end = pages.lowerBound
        while end < limit, !resident.contains(end) {
            if claimed.insert(end) {
                // Another thread may have made it resident and given it back since the first look.
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

/// A run whose bytes arrive in parts.
struct ArrivingRun {
    private let run: PageRun
    /// Bytes of it that have come.
    var received = 0

    init(_ run: PageRun) {
        self.run = run
    }

    var region: Int { Int(run.region) }

    /// The pages that have not come altogether.
    @inline(__always)
    func rest(pageSize: Int) -> Range<Int> {
        Int(run.first) + received / pageSize..<Int(run.first) + Int(run.count)
    }

    @inline(__always)
    func isComplete(pageSize: Int) -> Bool { rest(pageSize: pageSize).isEmpty }
}

extension PlacementFailure {
    static let takenAway = Self(
        reason: "a page is not in the memory file any more, or never was: the process has truncated it, punched a hole "
            + "into it, handed another file over than it has mapped, or no memory is left"
    )
}

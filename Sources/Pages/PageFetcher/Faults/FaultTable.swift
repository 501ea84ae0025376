import LinuxSystem
import PageProtocol
import Synchronization

/// The pages that are wanted, expected, in flight and resident: decides which faults and pages cause a request.
///
/// A page becomes *wanted* by its first fault or by a request ahead of any fault, and stays wanted. A page that was
/// requested ahead is *expected* until a fault waits for it, and *asked ahead* until the source leaves it to the push.
/// A fault is *in flight* from the time at which it is recorded until its page is *resident*: placed, or removed by the
/// page's process. The kernel wakes every reader of a page that is placed, so one recorded fault stands for all faults
/// on its page.
///
/// Any thread may call any method, except that only one thread at a time may call ``expect(_:region:)``. No method
/// locks, waits or allocates. A fault and a request ahead are made in two steps each, so that tests can put the events
/// of other threads in between. Two threads may work on the same page at the same time:
/// - **Two faults.** Only one of them sets the bit in `wanted`, and only one clears a bit in `expected`: each is one
///   atomic operation. The fault that does so is recorded in flight and decides about the request. The other fault
///   waits for the same arrival.
/// - **A fault and a request ahead.** `expect` sets `askedAhead` and `expected` before `wanted`, so a fault that finds
///   the page wanted also finds how the page was requested. If the fault sets `wanted` first, `expect` takes its two
///   bits back and requests nothing. A second fault may clear `expected` in the meantime. Then two faults on the page
///   are in flight, and the first of them has requested the page.
/// - **A fault and an arrival.** The fault is recorded in flight before it reads `resident`. The arrival sets
///   `resident` before it looks for faults in flight. Each passes ``fence()`` between its write and its read, so at
///   least one finds the other: the arrival ends the fault, or the fault finds the page resident and ends itself.
/// - **A fault and SENT.** The fault clears `expected` before it reads `askedAhead`. SENT clears `askedAhead` before it
///   reads `expected`. Each passes ``fence()`` between its write and its read, so at least one requests the page. If
///   both request the page, it arrives twice.
struct FaultTable: ~Copyable, Sendable {
    /// The placed or removed pages; a bit is set only after its page was placed.
    let resident: [PageBitmap]
    /// The requested pages; a bit stays set, since a page is requested once on each connection.
    let wanted: [PageBitmap]
    /// The pages that were requested before any fault on them; a bit is cleared when a fault waits for its page.
    private let expected: [PageBitmap]
    /// The pages that were requested before any fault on them; a bit is cleared when SENT leaves its page to the push.
    private let askedAhead: [PageBitmap]
    private let inFlight: InFlightFaults

    /// Makes a table without faults, one region per bitmap.
    ///
    /// - Parameter resident: the pages that are already placed.
    init(resident: [PageBitmap]) throws(SystemError) {
        // A noncopyable value is made whole, after everything that can throw.
        let wanted = try FaultTable.bitmaps(like: resident)
        let expected = try FaultTable.bitmaps(like: resident)
        let askedAhead = try FaultTable.bitmaps(like: resident)
        self.resident = resident
        self.wanted = wanted
        self.expected = expected
        self.askedAhead = askedAhead
        inFlight = InFlightFaults()
    }

    private static func bitmaps(like others: [PageBitmap]) throws(SystemError) -> [PageBitmap] {
        var bitmaps: [PageBitmap] = []
        for other in others { bitmaps.append(try PageBitmap(pageCount: other.pageCount)) }
        return bitmaps
    }

    /// Orders every earlier store before every later load, for all threads.
    @inline(__always)
    private static func fence() {
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }

    /// Records a fault.
    ///
    /// - Parameters:
    ///   - fault: the fault; its page lies in its region.
    ///   - now: the time at which the fault was read, in nanoseconds of ``MonotonicClock``.
    /// - Returns: what the caller must do.
    @inline(__always)
    func fault(_ fault: Fault, now: UInt64) -> FaultOutcome {
        let found = look(at: fault)
        switch found {
        case .resident, .asked: return found
        case .expected, .request: return record(fault, after: found, now: now)
        }
    }

    /// The first step of ``fault(_:now:)``, before the fault is recorded in flight.
    ///
    /// - Returns: what the fault must cause, unless the second step finds that an arrival or SENT came in between.
    @inline(__always)
    func look(at fault: Fault) -> FaultOutcome {
        let (region, page) = (fault.region, fault.page)
        let isNew = wanted[region].insert(page)
        if resident[region].contains(page) { return .resident }
        if isNew { return .request }
        return expected[region].remove(page) ? .expected : .asked
    }

    /// The second step of ``fault(_:now:)``: records the fault in flight, and looks for what came since the first step.
    @inline(__always)
    func record(_ fault: Fault, after found: FaultOutcome, now: UInt64) -> FaultOutcome {
        let (region, page) = (fault.region, fault.page)
        inFlight.begin(region: region, page: page, now: now)
        FaultTable.fence()
        if resident[region].contains(page) {
            _ = inFlight.end(region: region, page: page)
            return .resident
        }
        return found == .request || !askedAhead[region].contains(page) ? .request : .expected
    }

    /// Marks the missing pages at the beginning of a run as requested ahead of any fault.
    ///
    /// Only one thread at a time may call this.
    ///
    /// - Returns: the number of pages to request; 0 if the first page of the run is not missing, or a fault has just
    ///   requested it.
    @inline(__always)
    func expect(_ pages: Range<Int>, region: Int) -> Int {
        var page = pages.lowerBound
        while page < pages.upperBound, isMissing(page, region: region) {
            announce(page, region: region)
            guard confirm(page, region: region) else { break }
            page += 1
        }
        return page - pages.lowerBound
    }

    /// The first step of ``expect(_:region:)`` for one page.
    @inline(__always)
    func announce(_ page: Int, region: Int) {
        askedAhead[region].insert(page)
        expected[region].insert(page)
    }

    /// The second step of ``expect(_:region:)`` for one page.
    ///
    /// - Returns: false if a fault has requested the page since the first step.
    @inline(__always)
    func confirm(_ page: Int, region: Int) -> Bool {
        if wanted[region].insert(page) { return true }
        expected[region].remove(page)
        askedAhead[region].remove(page)
        return false
    }

    /// Whether a page is neither resident nor wanted.
    @inline(__always)
    func isMissing(_ page: Int, region: Int) -> Bool {
        !wanted[region].contains(page) && !resident[region].contains(page)
    }

    /// Whether a fault on the page was read, whether or not the page has arrived.
    @inline(__always)
    func hasFaulted(_ page: Int, region: Int) -> Bool {
        wanted[region].contains(page) && !expected[region].contains(page)
    }

    /// Marks pages as resident, after they were placed.
    ///
    /// - Returns: the number of pages that were not resident before, and whether faults may wait for the pages. Such
    ///   faults must be ended by ``endFaults(on:region:)``.
    @inline(__always)
    func arrived(_ pages: Range<Int>, region: Int) -> (added: Int, areFaultsInFlight: Bool) {
        let added = resident[region].insert(run: pages)
        FaultTable.fence()
        return (added, inFlight.count > 0)
    }

    /// Ends the faults that wait for a resident page.
    ///
    /// - Returns: the time at which one of the faults was read; nil if no fault waits.
    @inline(__always)
    func endFaults(on page: Int, region: Int) -> UInt64? {
        inFlight.end(region: region, page: page)
    }

    /// Marks pages as resident that are never placed, and ends the faults that wait for them.
    ///
    /// - Returns: the number of pages that were not resident before.
    func removed(_ pages: Range<Int>, region: Int) -> Int {
        let (added, areFaultsInFlight) = arrived(pages, region: region)
        if areFaultsInFlight { for page in pages { _ = endFaults(on: page, region: region) } }
        return added
    }

    /// Handles SENT: the source leaves pages that were asked ahead to the push.
    ///
    /// - Parameters:
    ///   - pages: the pages that SENT names.
    ///   - region: the region of the pages.
    ///   - onWaited: called for each page that must be requested now, since a fault waits for it.
    /// - Returns: false if one of the pages was not asked ahead, or was left to the push before: SENT answers a request
    ///   only once, so that a peer cannot make this side repeat requests without end.
    @inline(__always)
    func left(_ pages: Range<Int>, region: Int, onWaited: (_ page: Int) -> Void) -> Bool {
        for page in pages where !askedAhead[region].remove(page) { return false }
        FaultTable.fence()
        for page in pages where !expected[region].contains(page) && !resident[region].contains(page) { onWaited(page) }
        return true
    }

    /// Of newly resident pages, the number that no fault has waited for.
    @inline(__always)
    func unawaited(_ pages: Range<Int>, added: Int, region: Int) -> Int {
        expected[region].count == 0 ? 0 : min(added, pages.count { expected[region].contains($0) })
    }

    /// Whether a page was requested before any fault on it, and no fault has waited for it since.
    @inline(__always)
    func isExpected(_ page: Int, region: Int) -> Bool { expected[region].contains(page) }

    /// Of a run, the number of pages that are wanted and not resident.
    func wantedCount(_ pages: Range<Int>, region: Int) -> Int {
        wanted[region].count == 0 ? 0 : wanted[region].count(in: pages, without: resident[region])
    }

    /// The next run of pages that are wanted and not resident; nil if the region has none from `page` on.
    ///
    /// - Parameters:
    ///   - page: the page from which to search.
    ///   - region: the region to search.
    ///   - longest: the most pages of the run.
    func wantedRun(from page: Int, region: Int, atMost longest: Int) -> Range<Int>? {
        let (wanted, resident) = (wanted[region], resident[region])
        guard wanted.count > 0 else { return nil }
        var first = page
        while first < wanted.pageCount, !wanted.contains(first) || resident.contains(first) { first += 1 }
        var end = first
        while end < wanted.pageCount, end - first < longest, wanted.contains(end), !resident.contains(end) { end += 1 }
        return end > first ? first..<end : nil
    }

    /// Whether all pages of a run are resident.
    func isResident(_ run: PageRun) -> Bool {
        let resident = resident[Int(run.region)]
        return (Int(run.first)..<Int(run.first) + Int(run.count)).allSatisfy { resident.contains($0) }
    }

    /// Whether all pages of a run are wanted.
    @inline(__always)
    func isWanted(_ run: PageRun) -> Bool {
        let wanted = wanted[Int(run.region)]
        return (Int(run.first)..<Int(run.first) + Int(run.count)).allSatisfy { wanted.contains($0) }
    }

    /// The number of faults in flight.
    var inFlightCount: Int { inFlight.count }

    /// The page of the oldest fault in flight and the time at which that fault was read; nil if there is none.
    ///
    /// For reports only: a change during the search may be missed.
    var oldest: (region: Int, page: Int, since: UInt64)? { inFlight.oldest }
}

/// What a fault must cause.
enum FaultOutcome: Hashable {
    /// Answer the fault: its page was placed or removed before, and does not arrive again.
    case resident
    /// Do nothing: an earlier fault waits for the page.
    case asked
    /// Request nothing: the page was requested ahead of the fault, which waits for it.
    case expected
    /// Request the page, for which the fault waits.
    case request
}

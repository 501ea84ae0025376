/// Requests the aligned window around each fault, nearest pages first.
///
/// A page that is present raises no fault, so its use cannot be seen. Therefore one page of a window, drawn at random,
/// is sometimes left out as a *probe*. Whether the probe faults soon stands for the pages that were requested. A probe
/// that the push brings first proves nothing. If too few probes are touched, windows shrink; finally only probes are
/// left, which cost nothing then.
struct FaultAround: PrefetchPolicy {
    private static let leastWindow = 4
    /// The number of faults per probe.
    private static let probeInterval = 8
    /// The number of probes watched at once; a new probe replaces the oldest one, which then counts as not touched.
    private static let probeCount = 16
    /// The number of probes that one judgement needs.
    private static let sample = 8
    /// The most pages to request at once on either side.
    private static let longestRun = 16

    private struct Probe {
        /// The region of the probe; negative for a free entry.
        var region = -1
        var page = 0
        /// Whether the pages around the probe were requested.
        var stands = false
    }

    private let regions: [PrefetchBounds]
    private var budget: PrefetchBudget
    private var probes = Array(repeating: Probe(), count: probeCount)
    private var oldest = 0
    private var faults = 0
    private var random = RandomPage()
    /// Pages requested so far.
    private(set) var asked = 0
    /// The probes with requested pages around them that were judged; ``touched`` counts those that were touched.
    private var judged = 0
    private var touched = 0

    /// Makes a policy that has seen no fault.
    init(_ regions: [PrefetchBounds]) {
        self.regions = regions
        budget = PrefetchBudget(
            longest: max(1, regions.reduce(0) { max($0, $1.window) }),
            least: FaultAround.leastWindow,
            sample: FaultAround.sample
        )
    }

    /// The requested pages, times the share of judged probes that were not touched.
    var unused: Int { judged == 0 ? asked : asked * (judged - touched) / judged }

    @inline(__always)
    mutating func fault(_ fault: Fault, in missing: inout some MissingPages & ~Copyable) {
        faults += 1
        settle(fault)
        let bounds = regions[fault.region]
        let length = min(bounds.window, budget.watched)
        guard length > 1 else { return }
        let first = fault.page / length * length
        let window = first..<min(first + length, bounds.pageCount)
        let hole = probe(in: window, fault, in: &missing)
        guard budget.window > 0 else { return }
        ask(window, around: fault, but: hole, in: &missing)
    }

    /// Closes the probe that this fault has touched, if there is one.
    private mutating func settle(_ fault: Fault) {
        for index in probes.indices where probes[index].region == fault.region && probes[index].page == fault.page {
            close(index, isTouched: true)
        }
    }

    private mutating func close(_ index: Int, isTouched: Bool) {
        if probes[index].stands {
            judged += 1
            touched += isTouched ? 1 : 0
        }
        budget.settle(1, used: isTouched ? 1 : 0)
        probes[index].region = -1
    }

    /// The page of a window to leave out; nil for none.
    private mutating func probe(
        in window: Range<Int>,
        _ fault: Fault,
        in missing: inout some MissingPages & ~Copyable
    ) -> Int? {
        for probe in probes where probe.region == fault.region && window.contains(probe.page) { return probe.page }
        guard faults % FaultAround.probeInterval == 0 else { return nil }
        let page = window.lowerBound + random.next(below: window.count)
        // A page that is present or on its way would prove nothing. No other page is drawn instead, so that all pages
        // stay equally likely.
        guard page != fault.page, missing.isMissing(page, region: fault.region) else { return nil }
        let last = probes[oldest]
        if last.region >= 0, missing.isMissing(last.page, region: last.region) { close(oldest, isTouched: false) }
        probes[oldest] = Probe(region: fault.region, page: page, stands: budget.window > 0)
        oldest = (oldest + 1) % FaultAround.probeCount
        return page
    }

    /// Requests a window in runs that double in length on both sides of the fault.
    private mutating func ask(
        _ window: Range<Int>,
        around fault: Fault,
        but hole: Int?,
        in missing: inout some MissingPages & ~Copyable
    ) {
        var (begin, end) = (fault.page, fault.page + 1)
        var length = 1
        while begin > window.lowerBound || end < window.upperBound {
            let (lower, upper) = (max(window.lowerBound, begin - length), min(window.upperBound, end + length))
            asked += ask(end..<upper, but: hole, fault.region, in: &missing)
            asked += ask(lower..<begin, but: hole, fault.region, in: &missing)
            (begin, end) = (lower, upper)
            length = min(FaultAround.longestRun, length * 2)
        }
    }

    private func ask(
        _ pages: Range<Int>,
        but hole: Int?,
        _ region: Int,
        in missing: inout some MissingPages & ~Copyable
    ) -> Int {
        guard let hole, pages.contains(hole) else { return missing.ask(pages, region: region) }
        return missing.ask(pages.lowerBound..<hole, region: region)
            + missing.ask(hole + 1..<pages.upperBound, region: region)
    }
}

/// Pseudorandom numbers (xorshift) that are the same in every run.
private struct RandomPage {
    private var state: UInt64 = 88_172_645_463_325_252

    mutating func next(below bound: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(state % UInt64(bound))
    }
}

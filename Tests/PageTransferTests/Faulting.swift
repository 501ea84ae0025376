@testable import PageFetcher

/// Memory in which every requested page arrives at once, and threads that touch it.
struct Faulting: MissingPages {
    struct Place: Hashable {
        var region: Int
        var page: Int
    }

    /// The pages that are present or on their way.
    var present: Set<Place> = []
    /// The ranges that a policy requested, in order, without empty ranges.
    private(set) var asked: [Range<Int>] = []
    private(set) var faults = 0
    private var faulted: Set<Place> = []

    func hasFaulted(_ page: Int, region: Int) -> Bool { faulted.contains(Place(region: region, page: page)) }

    func isMissing(_ page: Int, region: Int) -> Bool { !present.contains(Place(region: region, page: page)) }

    mutating func ask(_ pages: Range<Int>, region: Int) -> Int {
        if !pages.isEmpty { asked.append(pages) }
        return pages.count { present.insert(Place(region: region, page: $0)).inserted }
    }

    /// Touches a page as one thread.
    ///
    /// - Returns: the pages that the policy then requests, in order.
    @discardableResult
    mutating func touch(
        _ page: Int,
        region: Int = 0,
        thread: UInt32 = 0,
        _ policy: inout some PrefetchPolicy
    ) -> [Range<Int>] {
        guard present.insert(Place(region: region, page: page)).inserted else { return [] }
        faults += 1
        faulted.insert(Place(region: region, page: page))
        asked = []
        policy.fault(Fault(region: region, page: page, thread: thread), in: &self)
        return asked
    }
}

extension PrefetchPolicy {
    /// Touches pages of one region by one thread.
    ///
    /// - Returns: the number of faults.
    mutating func faults(of pages: some Sequence<Int>) -> Int {
        var memory = Faulting()
        for page in pages { memory.touch(page, &self) }
        return memory.faults
    }
}

/// Random pages, the same in each run.
struct RandomPages: Sequence, IteratorProtocol {
    private let pageCount: Int
    private var left: Int
    private var state: UInt64 = 88_172_645_463_325_252

    init(_ count: Int, of pageCount: Int) {
        self.pageCount = pageCount
        left = count
    }

    mutating func next() -> Int? {
        guard left > 0 else { return nil }
        left -= 1
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(state % UInt64(pageCount))
    }
}

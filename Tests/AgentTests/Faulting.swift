@testable import DestinationAgent

/// Memory to which everything that is asked for comes at once, and threads that touch it.
struct Faulting: MissingPages {
    struct Place: Hashable {
        var region: Int
        var page: Int
    }

    /// What is there or on its way.
    var present: Set<Place> = []
    /// What a policy asked for, in order, empty ranges left out.
    private(set) var asked: [Range<Int>] = []
    private(set) var faults = 0

    func isMissing(_ page: Int, region: Int) -> Bool { !present.contains(Place(region: region, page: page)) }

    mutating func ask(_ pages: Range<Int>, region: Int) -> Int {
        if !pages.isEmpty { asked.append(pages) }
        return pages.count { present.insert(Place(region: region, page: $0)).inserted }
    }

    /// A thread touches a page.
    ///
    /// - Returns: the pages that the policy then asks for, in order.
    @discardableResult
    mutating func touch(
        _ page: Int,
        region: Int = 0,
        thread: UInt32 = 0,
        _ policy: inout some PrefetchPolicy
    ) -> [Range<Int>] {
        guard present.insert(Place(region: region, page: page)).inserted else { return [] }
        faults += 1
        asked = []
        policy.fault(Fault(region: region, page: page, thread: thread), in: &self)
        return asked
    }
}

extension PrefetchPolicy {
    /// Touches pages of one region by one thread.
    ///
    /// - Returns: how many faults it had.
    mutating func faults(of pages: some Sequence<Int>) -> Int {
        var memory = Faulting()
        for page in pages { memory.touch(page, &self) }
        return memory.faults
    }
}

/// Pages drawn at random, the same in each run.
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

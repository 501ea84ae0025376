extension WorkingSet {
    /// The pages that both have, as a part of those that at least one has: from 0, for none in common, to 1, for the
    /// same pages in whatever order. Nil where they are of different memories; 1 where neither has any.
    public func jaccardIndex(with other: WorkingSet) -> Double? {
        guard memory == other.memory else { return nil }
        let common = commonPages(with: other)
        let all = UInt64(pageCount) + UInt64(other.pageCount) - common
        return all == 0 ? 1 : Double(common) / Double(all)
    }

    private func commonPages(with other: WorkingSet) -> UInt64 {
        let mine = runsByPage
        let others = other.runsByPage
        var (index, otherIndex) = (0, 0)
        var common: UInt64 = 0
        while index < mine.count, otherIndex < others.count {
            let (run, otherRun) = (mine[index], others[otherIndex])
            let begin = max(run.first, otherRun.first)
            let end = min(run.end, otherRun.end)
            if begin < end { common += UInt64(end - begin) }
            if run.end <= otherRun.end { index += 1 } else { otherIndex += 1 }
        }
        return common
    }

    /// The runs in the order of the memory.
    var runsByPage: [Run] { runs.sorted { $0.first < $1.first } }
}
